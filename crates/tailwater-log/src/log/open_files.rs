//! How many files logs keep open: those that were not used for the longest time are closed, and opened again when needed.
//!
//! - A file that is written to is closed only when all of it is durable: an error that the system met while it wrote the
//!   rest back could be lost with the last descriptor.
//! - Nothing is waited for while room is made but the disk: whoever needs room may hold the writer of another log.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError, Weak};

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::{Error, Result};

/// A bound on how many files are open, shared by the logs that are given it ([`LogOptions::open_files`]).
///
/// Each log that is written to has one file open, and one for each segment that is read, with a map of it. What was not
/// used for the longest time is closed when there would be more: a log that was written to is made durable first. A few
/// more are open for moments, and one that cannot be closed just now is not waited for, so leave room below what the
/// system allows.
///
/// [`LogOptions::open_files`]: crate::LogOptions::open_files
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use tailwater_log::storage::SimDisk;
/// use tailwater_log::*;
///
/// let disk: Arc<SimDisk> = Arc::new(SimDisk::new(1));
/// let files = Arc::new(OpenFiles::at_most(2));
/// let mut logs = Vec::new();
/// for number in 0..10 {
///     let partition = PartitionId::new(number);
///     let identity = PartitionIdentity { topic_id: TopicId::from_bytes([1; 16]), partition };
///     let options = LogOptions { open_files: Some(Arc::clone(&files)), ..LogOptions::new(identity) };
///     let log = Log::create(disk.clone(), format!("/orders-{number}").as_ref(), options)?;
///     log.append(&[NewRecord::new(b"an espresso")], None, WhenFull::Wait)?.wait()?;
///     logs.push(log);
/// }
/// assert!(files.count() <= 2);
/// // All of them are there still, and take more.
/// for log in logs {
///     log.append(&[NewRecord::new(b"a tea")], None, WhenFull::Wait)?.wait()?;
///     assert_eq!(log.durable_offset(), Offset::new(2));
/// }
/// # Ok::<(), tailwater_log::Error>(())
/// ```
pub struct OpenFiles {
    limit: usize,
    /// In the order in which they were opened, or last found to have been used. Some may be closed already.
    holders: Mutex<VecDeque<Weak<dyn Holder>>>,
}

/// Something that holds files open.
pub(crate) trait Holder: Send + Sync {
    fn usage(&self) -> &Usage;

    /// Closes its files. False if that cannot be done now.
    fn let_go(&self) -> bool;
}

/// What a holder's files are used for.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    was_used: AtomicBool,
    is_listed: AtomicBool,
}

impl Usage {
    #[inline]
    pub(crate) fn note(&self) {
        // A load of what is seldom changed costs nothing, where a store would take the line from other readers.
        if !self.was_used.load(Ordering::Relaxed) {
            self.was_used.store(true, Ordering::Relaxed);
        }
    }
}

impl OpenFiles {
    /// A bound of `limit` files, at least 1.
    #[must_use]
    pub fn at_most(limit: usize) -> Self {
        Self { limit: limit.max(1), holders: Mutex::default() }
    }

    /// How many are counted as open: some of them may have been closed already, since what they belong to is gone.
    #[must_use]
    pub fn count(&self) -> usize {
        self.holders().len()
    }

    /// Closes all files that can be closed now; each is opened again when it is needed.
    pub fn close_unused(&self) {
        while self.close_one() {}
    }

    /// Closes files until there is room for one more, or none is left that can be closed.
    fn make_room(&self) {
        while self.count() >= self.limit && self.close_one() {}
    }

    /// Closes what was not used for the longest time. False if none can be closed.
    fn close_one(&self) -> bool {
        // Once round to forget what was used, once more to find one that was not since.
        for _ in 0..2 * self.count() {
            let Some(oldest) = self.holders().pop_front() else { return false };
            let Some(holder) = oldest.upgrade() else { return true };
            let usage = holder.usage();
            if !usage.was_used.swap(false, Ordering::Relaxed) {
                // Before its files are closed: whoever opens one again from here on lists it again.
                usage.is_listed.store(false, Ordering::SeqCst);
                if holder.let_go() {
                    return true;
                }
                if usage.is_listed.swap(true, Ordering::SeqCst) {
                    continue;
                }
            }
            self.holders().push_back(oldest);
        }
        false
    }

    fn list(&self, holder: Weak<dyn Holder>, usage: &Usage) {
        usage.note();
        if !usage.is_listed.swap(true, Ordering::SeqCst) {
            self.holders().push_back(holder);
        }
    }

    fn holders(&self) -> MutexGuard<'_, VecDeque<Weak<dyn Holder>>> {
        // No panic comes between the changes to what the mutex guards.
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for OpenFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFiles").field("limit", &self.limit).field("count", &self.count()).finish()
    }
}

/// The bound of a log's files, if there is one.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileBudget(Option<Arc<OpenFiles>>);

impl FileBudget {
    pub(crate) fn new(files: Option<Arc<OpenFiles>>) -> Self {
        Self(files)
    }

    /// Opens a file that is held from then on, or for a moment. Where the system allows no more, closes others first.
    pub(crate) fn open<T, E: AsError>(&self, open: impl Fn() -> Result<T, E>) -> Result<T, E> {
        let Some(files) = &self.0 else { return open() };
        files.make_room();
        match open() {
            // One that is closed makes room for one, unless another takes it.
            Err(error) if error.is_out_of_files() && files.close_one() => open(),
            opened => opened,
        }
    }

    /// Counts what `holder` has opened.
    pub(crate) fn list<H: Holder + 'static>(&self, holder: &Arc<H>) {
        if let Some(files) = &self.0 {
            let usage = holder.usage();
            let weak: Weak<H> = Arc::downgrade(holder);
            files.list(weak, usage);
        }
    }
}

/// An error of opening a file.
pub(crate) trait AsError {
    /// Whether the process, or the system, has too many files open.
    fn is_out_of_files(&self) -> bool;
}

impl AsError for Error {
    fn is_out_of_files(&self) -> bool {
        Error::is_out_of_files(self)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A file that another thread opens again at the moment at which it is closed.
    struct Reopened {
        files: Arc<OpenFiles>,
        usage: Usage,
        me: Weak<Reopened>,
        closed: std::sync::atomic::AtomicU32,
    }

    impl Holder for Reopened {
        fn usage(&self) -> &Usage {
            &self.usage
        }

        fn let_go(&self) -> bool {
            if self.closed.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
                let me: Weak<Reopened> = Weak::clone(&self.me);
                self.files.list(me, &self.usage);
            }
            true
        }
    }

    #[test]
    fn a_file_that_is_opened_again_while_it_is_closed_is_counted() {
        // It was taken for listed still, and stayed open for ever.
        let files = Arc::new(OpenFiles::at_most(10));
        let holder = Arc::new_cyclic(|me| Reopened {
            files: Arc::clone(&files),
            usage: Usage::default(),
            me: Weak::clone(me),
            closed: std::sync::atomic::AtomicU32::new(0),
        });
        let weak: Weak<Reopened> = Arc::downgrade(&holder);
        files.list(weak, &holder.usage);
        holder.usage.was_used.store(false, Ordering::SeqCst);
        assert!(files.close_one());
        assert_eq!(files.count(), 1, "it is open");
        files.close_unused();
        assert_eq!(files.count(), 0);
        assert_eq!(holder.closed.load(std::sync::atomic::Ordering::SeqCst), 2);
    }
}
