//! Mistakes that an engineer could make in this crate, to be made on purpose: a test plants each and looks whether the
//! searches for lost records find it (`tests/planted_mistakes.rs`, `tests/schedules.rs`).
//!
//! With the feature `planted-mistakes` they can be switched on at run time, for the whole process. Without it the question
//! is answered at compile time, and nothing is left of them.

/// A mistake in the engine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(not(feature = "planted-mistakes"), allow(unreachable_pub))]
#[repr(u8)]
pub enum Mistake {
    /// A sync of few bytes is not worth its price.
    SkipSmallSyncs = 1,
    /// The durable offset moves to the end of what is staged, not of what was synced.
    AcknowledgeWhatIsStaged,
    /// Readers of a durable log are shown what is only written.
    ShowWhatIsWritten,
    /// A sync covers the active segment and forgets the one before it.
    ForgetPreviousSegment,
    /// The name of a new segment is not synced.
    ForgetNameOfNewSegment,
    /// A segment is renamed into place before it is synced.
    RenameBeforeSync,
    /// The clean mark stays valid after an append.
    LeaveCleanMark,
    /// The dirty flag is written and not synced.
    DirtyFlagNotSynced,
    /// The first append trusts that whoever made the files has synced their names.
    TrustNamesOfOthers,
    /// A close writes the clean mark before it syncs the data.
    CleanMarkBeforeSync,
    /// A footer is written before what it covers is durable.
    FooterBeforeSync,
    /// A truncation does not sync what it keeps.
    TruncationForgetsKept,
    /// A truncation goes on in the same epoch.
    TruncationKeepsEpoch,
    /// Segments are unlinked before the log start is durable.
    UnlinkBeforeLogStart,
    /// Recovery does not sync its copy.
    RecoveryForgetsSync,
    /// Recovery unlinks what it supersedes before the name of its copy is durable.
    UnlinkBeforeCommit,
    /// Recovery goes on in the file that it found, behind the last good batch.
    RecoverInPlace,
    /// Recovery goes on in the epoch that it found.
    RecoveryKeepsEpoch,
    /// Recovery takes all damage for a torn tail.
    ForgetDurableMark,
    /// Recovery scans from where the checkpoint says, whatever epoch that is of.
    TrustOldScanPoint,
    /// Recovery checks headers and not bodies.
    ScanWithoutBodies,
    /// A file that is left under a temporary name is emptied and used.
    ReuseTemporaryFile,
    /// Recovery takes what compaction has taken the place of for part of the log.
    RecoveryForgetsCovered,
    /// Recovery scans from where the checkpoint says, in a file that compaction has put in the place of the one that was meant.
    TrustCompactedScanPoint,
    /// Compaction does not sync what it has written.
    CompactionForgetsSync,
    /// Compaction unlinks what it has taken the place of before the name of that is durable.
    CompactionUnlinksBeforeSync,
    /// Compaction removes tombstones as soon as it meets them.
    CompactionDropsTombstonesEarly,
    /// Compaction counts on records that may not be durable.
    CompactionTrustsUnsynced,
    /// Reads do not check bodies.
    ReadWithoutChecksum,
    /// A failed sync is tried again.
    RetryFailedSync,
    /// After a failed sync the log goes on.
    ForgetFailedSync,
    /// A leader that ends does not hand the lead on.
    ForgetNextLeader,
    /// Readers are woken before they can see what woke them.
    WakeBeforePublishing,
    /// The end is published before the bytes below it are written.
    PublishBeforeWriting,
}

#[cfg(feature = "planted-mistakes")]
impl Mistake {
    /// Those that only some schedules of several threads bring to light (`tests/schedules.rs`).
    pub const BETWEEN_THREADS: &[Mistake] = &[
        Mistake::AcknowledgeWhatIsStaged,
        Mistake::ForgetNextLeader,
        Mistake::WakeBeforePublishing,
        Mistake::PublishBeforeWriting,
    ];

    /// Those that show in the order of calls, whoever makes them (`tests/planted_mistakes.rs`).
    pub const IN_ONE_ORDER: &[Mistake] = &[
        Mistake::SkipSmallSyncs,
        Mistake::ShowWhatIsWritten,
        Mistake::ForgetPreviousSegment,
        Mistake::ForgetNameOfNewSegment,
        Mistake::RenameBeforeSync,
        Mistake::LeaveCleanMark,
        Mistake::DirtyFlagNotSynced,
        Mistake::TrustNamesOfOthers,
        Mistake::CleanMarkBeforeSync,
        Mistake::FooterBeforeSync,
        Mistake::TruncationForgetsKept,
        Mistake::TruncationKeepsEpoch,
        Mistake::UnlinkBeforeLogStart,
        Mistake::RecoveryForgetsSync,
        Mistake::UnlinkBeforeCommit,
        Mistake::RecoverInPlace,
        Mistake::RecoveryKeepsEpoch,
        Mistake::ForgetDurableMark,
        Mistake::TrustOldScanPoint,
        Mistake::ScanWithoutBodies,
        Mistake::ReuseTemporaryFile,
        Mistake::RecoveryForgetsCovered,
        Mistake::TrustCompactedScanPoint,
        Mistake::CompactionForgetsSync,
        Mistake::CompactionUnlinksBeforeSync,
        Mistake::CompactionDropsTombstonesEarly,
        Mistake::CompactionTrustsUnsynced,
        Mistake::ReadWithoutChecksum,
        Mistake::RetryFailedSync,
        Mistake::ForgetFailedSync,
    ];
}

#[cfg(feature = "planted-mistakes")]
mod planting {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Mistake;

    static PLANTED: AtomicU8 = AtomicU8::new(0);

    /// Makes `mistake` from now on, in the whole process; `None` makes none.
    pub fn plant(mistake: Option<Mistake>) {
        PLANTED.store(mistake.map_or(0, |mistake| mistake as u8), Ordering::SeqCst);
    }

    pub(crate) fn is_planted(mistake: Mistake) -> bool {
        PLANTED.load(Ordering::Relaxed) == mistake as u8
    }
}

#[cfg(feature = "planted-mistakes")]
pub(crate) use planting::is_planted;
#[cfg(feature = "planted-mistakes")]
pub use planting::plant;

#[cfg(not(feature = "planted-mistakes"))]
#[inline(always)]
pub(crate) const fn is_planted(_: Mistake) -> bool {
    false
}
