//! A log that is driven by public calls, while an oracle keeps what it has promised.

use std::ops::ControlFlow;
use std::sync::Arc;

use tailwater_log::storage::SimDisk;
use tailwater_log::{
    CleanupPolicy, Clock, CompactionLimits, Compression, Durability, Error, FetchIsolation, Log, LogOptions,
    ManualClock, NewRecord, Offset, OpenFiles, Timestamp, WhenFull,
};

use super::oracle::{
    Choices, DELETE_RETENTION_MS, Entry, Found, History, Oracle, open, options, read_records,
};

/// A place in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// So far above the log start; beyond the end it begins anew.
    Nth(u64),
    /// So far below the log end.
    BeforeEnd(u64),
}

/// A public call, or what befalls the process or the machine between two.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// Appends values of these sizes as one batch, and waits for it.
    Append(Vec<usize>, Option<Durability>),
    /// Appends one value at the right end, or asks for an end that is wrong.
    AppendIf {
        is_right: bool,
    },
    Sync,
    WriteStaged,
    Roll,
    /// Lets time pass first.
    Maintain {
        after_ms: i64,
    },
    TruncateTo(At),
    DeleteBefore(At),
    /// Lets retention by size work, with the records from a place on held.
    Retain {
        bytes: u64,
        held: At,
    },
    /// Deletes what is before a place, as far as so many bytes call for it.
    MakeSpace {
        bytes: u64,
        up_to: At,
    },
    /// Lets time pass first, and begins a new segment, so that there is something to compact.
    Compact {
        after_ms: i64,
    },
    /// Closes, and opens again.
    Reopen,
    /// Drops the last handle, and opens again.
    DropAndReopen,
    Read,
    /// Closes all files that are open and can be closed.
    CloseFiles,
    /// The process dies; the next call opens.
    Die,
    /// The power is cut, and nothing that was pending survives, or all of it.
    CutPower {
        survives: bool,
    },
}

/// A log on a simulated disk.
#[derive(Debug)]
pub struct Driven {
    pub disk: SimDisk,
    pub oracle: Oracle,
    pub log: Option<Log>,
    /// Whether operations are made to fail, so that what nobody waited for may be lost without a crash.
    pub is_faulty: bool,
    /// How the log is compressed. Then half of the values are such that they do not get smaller.
    pub compression: Compression,
    clock: Arc<ManualClock>,
    files: Arc<OpenFiles>,
    durability: Durability,
    number: u64,
}

impl Driven {
    pub fn new(disk: SimDisk, durability: Durability) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000)));
        let files = Arc::new(OpenFiles::at_most(100));
        let oracle = Oracle { is_durable: durability == Durability::Durable, ..Oracle::default() };
        let compression = Compression::None;
        Self { disk, oracle, log: None, is_faulty: false, compression, clock, files, durability, number: 0 }
    }

    /// Makes the call; opens the log first if it is not. After an error the oracle allows both that it had its effect and
    /// that it had not, unless the log is in a state to tell.
    ///
    /// # Panics
    ///
    /// If a promise is broken that can be seen at once.
    pub fn perform(&mut self, call: &Call) -> Result<(), Error> {
        self.clock.advance_ms(7);
        match call {
            Call::Die => {
                let after = self.disk.kill();
                self.log = None;
                self.disk = after;
                return Ok(());
            }
            Call::CutPower { survives } => {
                let after = self.disk.crash(|_, _| *survives);
                self.disk.cut_power_after(0);
                self.log = None;
                self.disk = after;
                self.oracle.histories.iter_mut().for_each(|history| history.written = history.durable);
                return Ok(());
            }
            _ => {}
        }
        if self.log.as_ref().is_some_and(Log::is_failed) {
            self.leave_failed_log();
        }
        let log = self.open()?;
        let made = self.call(log, call);
        self.observe();
        made
    }

    /// Opens the log if it is not.
    pub fn open(&mut self) -> Result<Log, Error> {
        if let Some(log) = &self.log {
            return Ok(log.clone());
        }
        let open_files = Some(Arc::clone(&self.files));
        let mut options = LogOptions { open_files, ..options(self.durability, &self.clock) };
        options.config.compression = self.compression;
        options.config.cleanup_policy = CleanupPolicy::CompactAndDelete;
        options.config.delete_retention_ms = DELETE_RETENTION_MS;
        let log = open(&self.disk, options)?;
        match self.oracle.check(&log, false) {
            Ok(found) => self.oracle = found,
            // A read that was made to fail is no finding.
            Err(error) => {
                let is_disturbed = self.is_faulty || !self.disk.is_powered();
                assert!(is_disturbed && error.starts_with("cannot read"), "{error}");
            }
        }
        self.log = Some(log.clone());
        self.observe();
        Ok(log)
    }

    /// A failed log takes nothing more, says why, and is left.
    fn leave_failed_log(&mut self) {
        let Some(log) = self.log.take() else { return };
        let end = log.log_end_offset();
        let refused = NewRecord { key: Some(b"k"), ..NewRecord::new(b"refused") };
        let refused = log.append(&[refused], None, WhenFull::Wait);
        assert!(matches!(refused, Err(Error::Failed { .. })), "{refused:?}");
        assert!(matches!(log.roll(), Err(Error::Failed { .. })));
        assert_eq!(log.log_end_offset(), end);
    }

    fn call(&mut self, log: Log, call: &Call) -> Result<(), Error> {
        match call {
            Call::Append(sizes, durability) => {
                let entries: Vec<_> = sizes.iter().map(|size| self.next_entry(*size)).collect();
                self.append(entries, |records| log.append(records, *durability, WhenFull::Wait))
            }
            Call::AppendIf { is_right } => {
                let end = log.log_end_offset().get() + u64::from(!is_right);
                let entries = vec![self.next_entry(40)];
                let append = |records: &[NewRecord<'_>]| {
                    log.append_if(Offset::new(end), records, None, WhenFull::Wait)
                };
                let appended = self.append(entries, append);
                if !is_right {
                    let Err(error) = appended else { panic!("appended at the wrong end") };
                    return if matches!(error, Error::UnexpectedEnd { .. }) { Ok(()) } else { Err(error) };
                }
                appended
            }
            Call::Sync => log.sync().map(drop),
            Call::WriteStaged => log.write_staged().map(drop),
            Call::Roll => log.roll(),
            Call::Maintain { after_ms } => {
                self.clock.advance_ms(*after_ms);
                log.maintain().map(drop)
            }
            Call::TruncateTo(at) => self.truncate(&log, resolve(&log, *at)),
            Call::DeleteBefore(at) => {
                let to = resolve(&log, *at);
                self.oracle.log_starts.push(to);
                log.delete_records_before(Offset::new(to))?;
                assert!(log.log_start_offset().get() >= to);
                self.history().promise(Durability::Durable, to as usize);
                Ok(())
            }
            Call::Retain { bytes, held } => {
                let held = resolve(&log, *held);
                self.may_start_up_to(&log, held);
                let mut config = (*log.config()).clone();
                config.retention_bytes = Some(*bytes);
                log.set_config(config.clone())?;
                let retained = log.retain(Some(Offset::new(held)));
                config.retention_bytes = None;
                log.set_config(config)?;
                retained?;
                assert!(log.log_start_offset().get() <= held, "what is held was deleted");
                self.history().promise(Durability::Durable, log.log_start_offset().get() as usize);
                Ok(())
            }
            Call::MakeSpace { bytes, up_to } => {
                let up_to = resolve(&log, *up_to);
                self.may_start_up_to(&log, up_to);
                log.make_space(*bytes, Offset::new(up_to))?;
                assert!(log.log_start_offset().get() <= up_to, "what is held was deleted");
                assert_eq!(log.stats()?.removals.waiting_segments, 0);
                self.history().promise(Durability::Durable, log.log_start_offset().get() as usize);
                Ok(())
            }
            Call::Compact { after_ms } => self.compact(&log, *after_ms),
            Call::Reopen | Call::DropAndReopen => {
                self.log = None;
                if *call == Call::Reopen {
                    log.close()?;
                    self.history().promise_all();
                }
                drop(log);
                let promised = self.history().content.len();
                let log = self.open()?;
                // Dropping closes too, and cannot say whether that worked; an open that works tells.
                assert!(
                    self.is_faulty || log.log_end_offset().get() as usize == promised,
                    "a drop loses records"
                );
                Ok(())
            }
            Call::Read => {
                let end = log.written_offset().get();
                let start = log.log_start_offset().get();
                let mut all: Vec<Found> = Vec::new();
                for offset in start..end {
                    let fetched =
                        log.fetch(Offset::new(offset), Default::default(), FetchIsolation::LogEnd, None)?;
                    // Where compaction has removed it, the next one comes.
                    let first = fetched.iter().next().map(|record| {
                        let (key, value) = (record.key().unwrap(), record.value());
                        (record.offset().get(), key.to_vec(), value.map(<[u8]>::to_vec))
                    });
                    let first = first.filter(|first| all.last() != Some(first) && first.0 < end);
                    all.extend(first);
                }
                let compared = self.history().compare(start as usize, end as usize, &all);
                assert_eq!(compared, Ok(()));
                Ok(())
            }
            Call::CloseFiles => {
                self.files.close_unused();
                let is_open = self.files.count() > 0;
                assert!(!is_open || self.is_faulty || !self.disk.is_powered(), "nothing keeps them open");
                Ok(())
            }
            Call::Die | Call::CutPower { .. } => unreachable!("they need no log"),
        }
    }

    /// The log may begin anywhere below `end` from now on.
    fn may_start_up_to(&mut self, log: &Log, end: u64) {
        self.oracle.log_starts.extend(log.log_start_offset().get()..=end);
    }

    fn append(
        &mut self,
        entries: Vec<Entry>,
        append: impl FnOnce(&[NewRecord<'_>]) -> tailwater_log::Result<tailwater_log::Receipt>,
    ) -> Result<(), Error> {
        let records: Vec<_> = entries
            .iter()
            .map(|entry| NewRecord {
                key: Some(&entry.key),
                value: entry.value.as_deref(),
                ..NewRecord::default()
            })
            .collect();
        let history = self.history();
        let before = history.content.len();
        let receipt = append(&records)?;
        // From here on they have offsets, whatever becomes of them.
        history.content.extend(entries.iter().cloned());
        let asked = receipt.durability();
        let offsets = receipt.wait()?.offsets;
        assert_eq!(offsets.start.get() as usize, before, "offsets follow one another");
        assert_eq!(offsets.end.get() as usize, history.content.len());
        history.promise(asked, history.content.len());
        Ok(())
    }

    fn compact(&mut self, log: &Log, after_ms: i64) -> Result<(), Error> {
        self.clock.advance_ms(after_ms);
        log.roll()?;
        let now = self.clock.now().as_millis();
        self.history().begin_compaction(now);
        let report = log.compact(&CompactionLimits::default(), &mut |_| ControlFlow::Continue(()))?;
        if let Some(left) = report.left_alone.into_iter().next() {
            return Err(left.error);
        }
        if !self.is_faulty {
            let (start, end) = (log.log_start_offset().get(), log.written_offset().get());
            match read_records(log, end) {
                Ok(found) => self.history().settle(start as usize, &found),
                Err(error) => assert!(!self.disk.is_powered(), "{error}"),
            }
        }
        Ok(())
    }

    fn truncate(&mut self, log: &Log, cut: u64) -> Result<(), Error> {
        let before = log.epoch();
        let kept = self.history().truncated_at(cut as usize);
        let has_effect = cut < log.log_end_offset().get();
        self.oracle.histories.push(kept);
        let cut_it = log.truncate_to(Offset::new(cut));
        if cut_it.is_ok() || !log.is_failed() && self.disk.is_powered() {
            // It was cut, or nothing was changed.
            let was_cut = log.epoch() > before;
            assert!(was_cut || !has_effect || cut_it.is_err());
            self.oracle.histories.swap_remove(if was_cut || !has_effect { 0 } else { 1 });
        }
        cut_it?;
        self.history().promise_all();
        self.oracle.visible = self.oracle.visible.min(cut as usize);
        Ok(())
    }

    /// Notes what the log itself says it has reached, and checks that against what it was told.
    fn observe(&mut self) {
        let Some(log) = self.log.clone() else { return };
        if self.oracle.histories.len() > 1 || !self.disk.is_powered() {
            return;
        }
        let end = log.log_end_offset().get() as usize;
        assert_eq!(end, self.history().content.len(), "what has an offset was appended, and the reverse");
        if !log.is_failed() {
            self.oracle.log_starts = vec![log.log_start_offset().get()];
        }
        let (written, durable) = (log.written_offset().get() as usize, log.durable_offset().get() as usize);
        self.history().promise(Durability::Written, written);
        self.history().promise(Durability::Durable, durable);
        self.oracle.epoch = log.epoch().get();
        let visible = log.visible_end(FetchIsolation::Visible).get() as usize;
        self.oracle.visible = if log.is_failed() { self.oracle.visible.max(visible) } else { visible };
    }

    /// Whether the live log shows what was written, each record once.
    pub fn check_live(&self) -> Result<(), String> {
        let Some(log) = &self.log else { return Ok(()) };
        let (start, written) = (log.log_start_offset().get() as usize, log.written_offset().get() as usize);
        let found = read_records(log, written as u64)?;
        let mut differences = Vec::new();
        let mut shows = |history: &History| {
            let compared = history.compare(start, written, &found);
            differences.extend(compared.as_ref().err().cloned());
            compared.is_ok() && history.content.len() >= written
        };
        if self.oracle.histories.iter().any(&mut shows) {
            return Ok(());
        }
        Err(format!(
            "offsets {start} to {written} of the live log are not what was appended: {differences:?}"
        ))
    }

    fn history(&mut self) -> &mut History {
        &mut self.oracle.histories[0]
    }

    /// Keys recur, and every fourth is a tombstone, where it need not be large.
    fn next_entry(&mut self, size: usize) -> Entry {
        self.number += 1;
        let is_tombstone = self.number.is_multiple_of(4) && size < 250;
        let value = match self.compression != Compression::None && self.number.is_multiple_of(2) {
            true => {
                let mut noise = Choices::new(self.number);
                (0..size).map(|_| noise.below(256) as u8).collect()
            }
            false => format!("{}:{}", self.number, "v".repeat(size)).into_bytes(),
        };
        Entry::new(format!("k{}", self.number % 3).into_bytes(), (!is_tombstone).then_some(value))
    }
}

fn resolve(log: &Log, at: At) -> u64 {
    let (start, end) = (log.log_start_offset().get(), log.log_end_offset().get());
    match at {
        At::Nth(n) => start + n % (end - start + 1),
        At::BeforeEnd(n) => start.max(end.saturating_sub(n)),
    }
}
