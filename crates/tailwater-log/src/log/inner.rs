//! What the handles of one log share.
//!
//! Lock order: leadership of the group commit, then the writer, then staging. Whoever holds a later one never waits
//! for an earlier one.
//!
//! - `log start <= durable offset <= written end <= log end offset`.
//! - The published ends only grow, except by `truncate_to`.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError, Weak};

use arc_swap::ArcSwap;

use super::commit::GroupCommit;
use super::compact::Compaction;
use super::counters::Counters;
use super::ends::Ends;
use super::open_files::{FileBudget, Holder, Usage};
use super::removal::Removals;
use super::signal::Listeners;
use super::slot::Slot;
use super::space::Space;
use super::staging::Staging;
use super::writer::Writer;
use super::{Appended, FetchIsolation};
use crate::mistakes::{Mistake, is_planted};
use crate::recovery::RecoveryReport;
use crate::segment::{SegmentContext, SegmentList};
use crate::storage::{DirectoryLock, LockOwner, Storage};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard, thread};
use crate::{Clock, Durability, Error, LogConfig, LogEpoch, Offset, PartitionIdentity, Result, Timestamp};

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) directory: PathBuf,
    pub(crate) identity: PartitionIdentity,
    pub(crate) config: ArcSwap<LogConfig>,
    /// Whether readers see what is durable only: the configuration says so. Here for those who ask at every write or read.
    pub(crate) shows_durable: AtomicBool,
    pub(crate) clock: Arc<dyn Clock>,
    /// Released when the log is closed.
    pub(crate) lock: Mutex<Option<Arc<DirectoryLock>>>,
    /// Who may write: not a child that was forked since. Absent in a log that was attached read-only.
    pub(crate) owner: Option<LockOwner>,
    pub(crate) staging: Mutex<Staging>,
    /// Absent in a log that was attached read-only or found corrupt: nothing is ever written then.
    pub(crate) writer: Option<Slot<Writer>>,
    pub(crate) ends: Ends,
    pub(crate) segments: ArcSwap<SegmentList>,
    pub(crate) commit: GroupCommit,
    pub(crate) listeners: Listeners,
    pub(crate) failure: Failure,
    pub(crate) is_closed: AtomicBool,
    /// Set when a close has made durable what it could: what is missing then will never come.
    pub(crate) is_settled: AtomicBool,
    /// `truncate_to` in this process: from which epoch on, and where it cut.
    pub(crate) truncations: Mutex<Vec<(LogEpoch, Offset)>>,
    pub(crate) report: RecoveryReport,
    pub(crate) counters: Counters,
    /// Files of deleted segments.
    pub(crate) removals: Mutex<Removals>,
    /// The bound of the disk space that it shares with others.
    pub(crate) space: Space,
    /// The bound of its files, and what tells whether it uses them.
    pub(crate) files: FileBudget,
    pub(crate) usage: Usage,
    /// Itself, for the list of those that have files open.
    pub(crate) me: Weak<Inner>,
    /// Set while a file has taken the place of another and the list does not tell yet. Whoever sets it has the writer.
    pub(crate) is_exchanging: AtomicBool,
    pub(crate) compaction: Compaction,
    /// Set for a log that was attached read-only.
    pub(crate) attachment: Option<Mutex<crate::recovery::Attachment>>,
}

/// The first error after which nothing may be acknowledged any more.
#[derive(Debug, Default)]
pub(crate) struct Failure(OnceLock<Arc<Error>>);

impl Failure {
    /// Answers `Failed` if there was such an error.
    pub(crate) fn check(&self) -> Result<()> {
        match self.0.get() {
            None => Ok(()),
            Some(cause) => Err(Error::Failed { cause: Arc::clone(cause) }),
        }
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.get().is_some()
    }

    pub(crate) fn cause(&self) -> Option<&Arc<Error>> {
        self.0.get()
    }
}

/// See [`Inner::begin_exchange`].
pub(crate) struct Exchange<'e>(&'e AtomicBool);

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Inner {
    pub(crate) fn staging(&self) -> MutexGuard<'_, Staging> {
        // What a panic inside leaves is still a state that never gave an offset out twice: offsets are counted last.
        self.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer's slot.
    ///
    /// # Errors
    ///
    /// Why this log is not written to, by this process.
    pub(crate) fn writer(&self) -> Result<&Slot<Writer>> {
        self.refuse_forked()?;
        self.writer.as_ref().ok_or_else(|| self.why_not_written())
    }

    /// Refuses to go on in a child that was forked since the log was opened: its parent still writes.
    pub(crate) fn refuse_forked(&self) -> Result<()> {
        self.owner.map_or(Ok(()), |owner| owner.refuse_forked(&self.directory))
    }

    fn why_not_written(&self) -> Error {
        self.staging().stopped().cloned().unwrap_or(Error::ReadOnly)
    }

    /// Makes `error` the reason why nothing is acknowledged from now on, and tells everybody who waits.
    pub(crate) fn fail(&self, error: Error) -> Error {
        if self.failure.0.set(Arc::new(error.clone())).is_ok() {
            tracing::error!(directory = %self.directory.display(), %error, "the log stops until it is reopened");
        }
        let cause = Arc::clone(self.failure.0.get_or_init(|| Arc::new(error.clone())));
        self.staging().stop(Error::Failed { cause });
        self.commit.wake_all();
        self.listeners.notify_all();
        error
    }

    /// Fails the log unless `result` is good; errors that leave everything as it was are let through.
    pub(crate) fn sticky<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match error {
            Error::Failed { .. } | Error::Closed | Error::DiskFull { .. } | Error::LogFull(_) => error,
            error if error.is_out_of_files() => error,
            error => self.fail(error),
        })
    }

    /// Publishes what was written and tells those who read it.
    pub(crate) fn publish_written(&self, written: Offset) {
        let is_visible = !self.shows_durable_only();
        let wake = || self.listeners.notify(|isolation| is_visible || isolation == FetchIsolation::LogEnd);
        if is_planted(Mistake::WakeBeforePublishing) {
            wake();
            self.ends.set_written(written);
        } else {
            self.ends.set_written(written);
            wake();
        }
        self.commit.wake_tasks();
    }

    /// Publishes what was synced and tells those who wait for it or read it.
    pub(crate) fn publish_durable(&self, durable: Offset) {
        self.ends.set_durable(durable);
        self.commit.note_durable(durable);
        if self.shows_durable_only() {
            self.listeners.notify(|isolation| isolation == FetchIsolation::Visible);
        }
    }

    #[inline]
    pub(crate) fn shows_durable_only(&self) -> bool {
        self.shows_durable.load(Ordering::SeqCst)
    }

    pub(crate) fn visible_end(&self, isolation: FetchIsolation) -> Offset {
        match isolation {
            FetchIsolation::Visible
                if self.shows_durable_only() && !is_planted(Mistake::ShowWhatIsWritten) =>
            {
                self.ends.durable()
            }
            _ => self.ends.written(),
        }
    }

    /// Whether an append has reached `durability` for certain, which is most often so.
    #[inline]
    pub(crate) fn has_reached(&self, appended: Appended, durability: Durability) -> bool {
        let end = match durability {
            Durability::Buffered => return true,
            Durability::Written => self.ends.written(),
            Durability::Durable => self.ends.durable(),
        };
        // The end before the epoch, as in `outcome`.
        self.ends.epoch() == appended.epoch && end >= appended.offsets.end
    }

    /// What became of an append, or `None` as long as that is open.
    pub(crate) fn outcome(&self, appended: Appended, durability: Durability) -> Option<Result<Appended>> {
        let end = match durability {
            Durability::Buffered => return Some(Ok(appended)),
            Durability::Written => self.ends.written(),
            Durability::Durable => self.ends.durable(),
        };
        // The end is read before the epoch: if the epoch is still the append's, the end was of that history.
        if self.ends.epoch() != appended.epoch && self.was_truncated(appended) {
            return Some(Err(Error::Truncated { offset: appended.offsets.start }));
        }
        if end >= appended.offsets.end {
            return Some(Ok(appended));
        }
        if let Err(failed) = self.failure.check() {
            return Some(Err(failed));
        }
        // A close makes everything durable first; only what is still missing after that will never come.
        self.is_settled.load(Ordering::SeqCst).then(|| {
            let end = match durability {
                Durability::Written => self.ends.written(),
                _ => self.ends.durable(),
            };
            if end >= appended.offsets.end { Ok(appended) } else { Err(Error::Closed) }
        })
    }

    fn was_truncated(&self, appended: Appended) -> bool {
        let truncations = self.truncations.lock().unwrap_or_else(PoisonError::into_inner);
        truncations.iter().any(|(epoch, start)| *epoch > appended.epoch && *start < appended.offsets.end)
    }

    /// Runs `look` on the list of segments, again if it meets a file that was replaced or removed because the list has changed.
    pub(crate) fn look_at_segments<T>(
        &self,
        mut look: impl FnMut(&Arc<SegmentList>) -> Result<T>,
    ) -> Result<T> {
        loop {
            let segments = self.segments.load_full();
            match look(&segments) {
                Err(Error::Corrupt(_)) if !Arc::ptr_eq(&segments, &self.settled_segments()) => {}
                looked => return looked,
            }
        }
    }

    /// The list of segments, once it tells which files there are: for who has met another file than it said.
    pub(crate) fn settled_segments(&self) -> Arc<SegmentList> {
        while self.is_exchanging.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        self.segments.load_full()
    }

    /// Begins to put a file in the place of another, and ends when what is returned is dropped: by then the list has to tell.
    pub(crate) fn begin_exchange(&self) -> Exchange<'_> {
        self.is_exchanging.store(true, Ordering::SeqCst);
        Exchange(&self.is_exchanging)
    }

    pub(crate) fn segment_context(&self, end: Offset) -> SegmentContext<'_> {
        SegmentContext {
            storage: &self.storage,
            identity: self.identity,
            read_mode: self.config.load().read_mode,
            files: &self.files,
            end,
        }
    }

    /// Counts the files that are open for writing.
    pub(crate) fn list_open(&self) {
        if let Some(me) = self.me.upgrade() {
            self.files.list(&me);
        }
    }

    /// The error for an offset that is not in the log, which ends at `log_end_offset`.
    pub(crate) fn out_of_range(&self, requested: Offset, log_end_offset: Offset) -> Error {
        Error::OffsetOutOfRange { requested, log_start_offset: self.ends.start(), log_end_offset }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl Holder for Inner {
    fn usage(&self) -> &Usage {
        &self.usage
    }

    fn let_go(&self) -> bool {
        // Whoever leads or writes just now is not waited for.
        let (Some(slot), Some(_leader)) = (&self.writer, self.commit.try_lead()) else { return false };
        slot.try_take().is_some_and(|mut writer| writer.let_go(self))
    }
}
