//! Reading the groups log.
//!
//! - Entries are applied in the order of the log, whole batches at a time.
//! - A log that does not begin at offset 0 is believed only if a rewrite has ended that began where it begins: anything
//!   else has lost entries, or shows (to a reader beside a writer that recovers it) only a part of what there is.
//! - A log that says that entries are lost, since it was repaired, is believed as far as it goes: a group whose latest
//!   entries are lost is where the ones before them say.

use tailwater_log::{
    Error as LogError, FetchHint, FetchIsolation, FetchLimits, Fetched, Log, LogEpoch, Offset,
};

use crate::format::{Entry, EntryDamage, EntryFault};
use crate::table::Table;
use crate::{Error, Result};

/// Whole batches, so that a set of positions is shown as a whole.
const LIMITS: FetchLimits = FetchLimits { max_records: u32::MAX, max_bytes: 1 << 20 };

/// How often a reader beside the writer looks again when what it reads is replaced meanwhile.
const MAX_TRIES: u32 = 20;

/// How far a log was read.
#[derive(Debug)]
pub(crate) struct Cursor {
    /// Where the log began.
    start: Offset,
    next: Offset,
    epoch: LogEpoch,
    hint: Option<FetchHint>,
    /// Whether everything that was so at `start` has been read.
    is_whole: bool,
    /// Whether a repair has taken entries out, so that what is left is all there is.
    is_repaired: bool,
}

/// What came next.
pub(crate) enum News {
    Entries(Fetched),
    /// Nothing: the end.
    None,
    /// What was to be read is not there any more, or another history has begun.
    StartOver,
}

impl Cursor {
    fn at_start_of(log: &Log) -> Self {
        let start = log.log_start_offset();
        Self {
            start,
            next: start,
            epoch: log.epoch(),
            hint: None,
            is_whole: start == Offset::ZERO,
            is_repaired: false,
        }
    }

    /// The offset to read, or to append, next.
    pub(crate) fn next(&self) -> Offset {
        self.next
    }

    /// Notes that this process has appended `count` entries, and applied them.
    pub(crate) fn skip_own(&mut self, count: u64) {
        self.next = self.next.checked_add(count).expect("the log has given these offsets out");
    }

    /// Reads on.
    pub(crate) fn fetch(&mut self, log: &Log) -> Result<News> {
        let fetched = match log.fetch(self.next, LIMITS, FetchIsolation::LogEnd, self.hint.take()) {
            Err(LogError::OffsetOutOfRange { .. }) => return Ok(News::StartOver),
            fetched => fetched?,
        };
        if log.epoch() != self.epoch {
            return Ok(News::StartOver);
        }
        self.hint = fetched.hint();
        Ok(if fetched.next_offset() == self.next { News::None } else { News::Entries(fetched) })
    }

    /// Applies what was read to `table`. After an error the cursor stands at the entry that caused it.
    pub(crate) fn apply(&mut self, fetched: &Fetched, table: &mut Table, durable: Offset) -> Result<()> {
        self.is_repaired |= fetched.lost().is_some();
        for batch in fetched.batches() {
            if batch.header().attributes.is_opaque() {
                let offset = batch.header().base_offset;
                return Err(Error::DamagedEntry { offset, damage: EntryDamage::Opaque });
            }
            for record in batch.records() {
                let offset = record.offset();
                self.next = offset;
                let entry = Entry::decode(record.key(), record.value()).map_err(|fault| match fault {
                    EntryFault::Damaged(damage) => Error::DamagedEntry { offset, damage },
                    EntryFault::Unsupported { entry_type, version } => {
                        Error::UnsupportedEntry { offset, entry_type, version }
                    }
                })?;
                self.is_whole |= entry == Entry::RewriteEnd { start: self.start };
                table.apply(&entry, offset, durable);
            }
        }
        self.next = fetched.next_offset();
        Ok(())
    }
}

/// Reads the log from its start to the end that it has now. `None` if it was replaced meanwhile.
///
/// No further: an attached log looks at its directory again when it is read at its end, and a writer that is faster than
/// this reader would have it start over for ever.
fn replay(log: &Log) -> Result<Option<(Cursor, Table)>> {
    let mut cursor = Cursor::at_start_of(log);
    let mut table = Table::default();
    let end = log.log_end_offset();
    // What is read below this is durable.
    let durable = log.durable_offset();
    while cursor.next < end {
        match cursor.fetch(log)? {
            News::Entries(fetched) => cursor.apply(&fetched, &mut table, durable)?,
            News::None | News::StartOver => return Ok(None),
        }
    }
    if cursor.is_repaired {
        table.register_orphans();
    } else if !cursor.is_whole {
        return Err(Error::IncompleteLog { log_start_offset: cursor.start });
    }
    if let Some(offset) = table.find_unregistered() {
        return Err(Error::DamagedEntry { offset, damage: EntryDamage::Unregistered });
    }
    Ok(Some((cursor, table)))
}

/// Reads the log of this process, to its end.
pub(crate) fn replay_own(log: &Log) -> Result<(Cursor, Table)> {
    // What is only staged cannot be read.
    if log.has_unsynced() {
        log.write_staged()?;
    }
    replay(log)?.ok_or_else(|| replaced(log))
}

/// Reads a log that another process may write to, as far as it is durable.
pub(crate) fn replay_attached(log: &Log) -> Result<(Cursor, Table)> {
    let mut tries = 1;
    loop {
        let outcome = replay(log);
        match outcome {
            Ok(Some(replayed)) => return Ok(replayed),
            Ok(None) if tries == MAX_TRIES => return Err(replaced(log)),
            Err(Error::IncompleteLog { log_start_offset }) if tries == MAX_TRIES => {
                return Err(Error::RecoveryPending { log_start_offset });
            }
            Err(error) if tries == MAX_TRIES || !is_passing(&error) => return Err(error),
            Ok(None) | Err(_) => {}
        }
        tries += 1;
        look_again(log)?;
    }
}

/// Has an attached log look at its directory.
fn look_again(log: &Log) -> Result<()> {
    match log.fetch(log.log_end_offset(), LIMITS, FetchIsolation::LogEnd, None) {
        Ok(_) | Err(LogError::OffsetOutOfRange { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether an attached reader may find it otherwise at the next look: the writer removes files, and begins new histories.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::IncompleteLog { .. } => true,
        Error::Log(error) => matches!(error, LogError::Corrupt(_)) || error.is_not_found(),
        _ => false,
    }
}

fn replaced(log: &Log) -> Error {
    Error::Log(LogError::OffsetOutOfRange {
        requested: log.log_start_offset(),
        log_start_offset: log.log_start_offset(),
        log_end_offset: log.log_end_offset(),
    })
}
