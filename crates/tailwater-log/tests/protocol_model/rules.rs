//! The rules of the protocol, each of which can be left out, and how far a search goes.

/// A rule of the protocol, as `docs/durability.md` has it. A search without one shows what it is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Rule {
    /// An open that is not clean syncs checkpoint and directory before it looks further.
    SyncBeforeRecovery,
    /// Garbage is ignored by an open, and unlinked only behind recovery's commit.
    UnlinkAfterCommit,
    /// A clean mark counts only if it names the last segment, which has the highest epoch, and that epoch.
    CleanNamesLast,
    /// A scan start from before the highest epoch is not used.
    ScanStartIsCurrent,
    /// The durable mark is the highest epoch's start, or a mark made in that epoch.
    MarksOfHighestEpoch,
    /// The dirty flag is synced before a byte of the first append is written.
    DirtyBeforeAppend,
    /// A footer is written only at or below the durable offset, when the next segment's name is durable.
    FooterBehindDurable,
    /// A roll waits until its own segment's name is durable.
    RollBehindOwnName,
    /// A truncation syncs what it keeps first.
    TruncateSyncs,
    /// Before the log start moves the directory is synced.
    DeleteSyncsNames,
    /// A moved log start is written with the dirty flag.
    DeleteIsDirty,
    /// A moved log start, and a recovery, is in both checkpoint slots before anything is unlinked.
    BothSlots,
    /// A recovery replaces the checkpoint by a new file.
    FreshCheckpoint,
    /// A recovered log is dirty until it is closed.
    RecoveredIsDirty,
    /// A close whose sync fails writes the dirty flag again.
    FailedCloseIsDirty,
    /// A close of a log that was not written to writes nothing.
    UnusedCloseWritesNothing,
    /// A copy of a whole segment goes to the end of the log, not to that of the segment.
    WholeCopyToEnd,
    /// A slot that does not verify is never clean, and makes the recorded log start a lower bound.
    BadSlotIsDirty,
    /// A new epoch is above the checkpoint's too.
    EpochAboveCheckpoint,
}

impl Rule {
    /// All of them.
    pub(crate) const ALL: [Rule; 19] = [
        Rule::SyncBeforeRecovery,
        Rule::UnlinkAfterCommit,
        Rule::CleanNamesLast,
        Rule::ScanStartIsCurrent,
        Rule::MarksOfHighestEpoch,
        Rule::DirtyBeforeAppend,
        Rule::FooterBehindDurable,
        Rule::RollBehindOwnName,
        Rule::TruncateSyncs,
        Rule::DeleteSyncsNames,
        Rule::DeleteIsDirty,
        Rule::BothSlots,
        Rule::FreshCheckpoint,
        Rule::RecoveredIsDirty,
        Rule::FailedCloseIsDirty,
        Rule::UnusedCloseWritesNothing,
        Rule::WholeCopyToEnd,
        Rule::BadSlotIsDirty,
        Rule::EpochAboveCheckpoint,
    ];
}

/// The rules that are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules(u32);

impl Rules {
    /// The protocol as it is.
    pub(crate) fn all() -> Self {
        Self::without(&[])
    }

    /// The protocol with some rules left out.
    pub(crate) fn without(left_out: &[Rule]) -> Self {
        Self(Rule::ALL.iter().filter(|rule| !left_out.contains(rule)).fold(0, |set, rule| set | bit(*rule)))
    }

    /// Whether `rule` is kept.
    pub(crate) fn has(self, rule: Rule) -> bool {
        self.0 & bit(rule) != 0
    }
}

fn bit(rule: Rule) -> u32 {
    1 << rule as u32
}

/// What a search goes through.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scope {
    /// Most operations of the user.
    pub(crate) operations: u8,
    /// Most crashes: deaths of the process and power cuts, within operations and within recoveries too.
    pub(crate) crashes: u8,
    /// Most syncs that fail; what they dropped does not become durable before the next power cut.
    pub(crate) failed_syncs: u8,
    /// Whether one durable batch may rot.
    pub(crate) has_rotten_batch: bool,
    /// Whether the newest slot of the checkpoint may rot.
    pub(crate) has_rotten_slot: bool,
    /// Whether a batch that was not synced may be torn by a power cut, besides being there or not.
    pub(crate) has_torn_batches: bool,
    /// Whether recovery copies the whole segment that the durable mark falls in, as it does with small ones.
    pub(crate) copies_whole_segment: bool,
    /// Whether a truncation keeps the beginning of the segment it cuts, as it does with batches that it cuts through.
    pub(crate) truncation_keeps_prefix: bool,
    /// Whether there are only appends, rolls, footers and syncs, which allows for longer sequences of them.
    pub(crate) is_about_rolls: bool,
}
