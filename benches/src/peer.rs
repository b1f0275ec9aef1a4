//! What a published crate has to offer, to be measured beside Tailwater.

use std::path::Path;

use crate::contest::{Contestant, Result, Role, Scale};

/// An open log, queue or store.
///
/// The methods with `&mut self` are for one thread; [`Peer::append_durable`] is called by many, as a user of the crate
/// would: behind a mutex where the crate asks for `&mut`.
pub trait Peer: Send + Sync {
    /// Appends a record in the cheapest way there is.
    ///
    /// # Errors
    ///
    /// The crate's.
    fn append(&mut self, value: &[u8]) -> Result<()>;

    /// Appends records together, as one batch where the crate knows batches.
    ///
    /// # Errors
    ///
    /// The crate's.
    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()> {
        values.iter().try_for_each(|value| self.append(value))
    }

    /// Appends `count` records with this value, in batches, to be read later.
    ///
    /// # Errors
    ///
    /// The crate's.
    fn fill(&mut self, value: &[u8], count: u64) -> Result<()> {
        let batch = [value; 1_000];
        for start in (0..count).step_by(batch.len()) {
            let left = usize::try_from(count - start).unwrap_or(usize::MAX);
            self.append_batch(&batch[..left.min(batch.len())])?;
        }
        self.write()
    }

    /// Hands to the operating system what [`Peer::append`] has kept in memory.
    ///
    /// # Errors
    ///
    /// The crate's.
    fn write(&mut self) -> Result<()> {
        Ok(())
    }

    /// Appends a record and returns when the crate calls it durable.
    ///
    /// # Errors
    ///
    /// The crate's.
    fn append_durable(&self, value: &[u8]) -> Result<()>;

    /// Reads all records from the first on, checked if the crate checks them. Returns the size of their values in bytes.
    ///
    /// # Errors
    ///
    /// The crate's.
    fn scan(&mut self) -> Result<u64>;

    /// Reads the record with this number, counted from 0. Returns the size of its value in bytes.
    ///
    /// # Errors
    ///
    /// The crate's.
    fn read(&mut self, index: u64) -> Result<usize>;
}

/// A workload that a crate may or may not have an answer to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    /// Appends that may stay in the memory of the process.
    Buffered,
    /// Appends that are in the page cache when they return.
    Written,
    /// Appends that are synced when they return.
    Durable,
    /// Reading everything in order.
    Scan,
    /// Reading one record at a random place.
    Read,
    /// Opening what was closed, and reading from it.
    Reopen,
}

/// A crate that takes part.
#[derive(Clone, Copy, Debug)]
pub struct PeerKind {
    /// Its name.
    pub name: &'static str,
    /// What an append that is not durable has reached when it returns.
    pub appended: &'static str,
    /// What it does to make an append durable; `strace` tells how far that is so.
    pub synced: &'static str,
    /// What it checks when it reads.
    pub checked: &'static str,
    /// What it can do.
    pub workloads: &'static [Workload],
    /// Whether a durable append has been synced when it returns.
    pub syncs: bool,
    /// Opens it in a directory, with room for `size_bytes` of records.
    pub open: fn(&Path, size_bytes: u64) -> Result<Box<dyn Peer>>,
}

impl PeerKind {
    /// What is printed beside its figures in this workload.
    #[must_use]
    pub fn note(&self, workload: Workload) -> String {
        match workload {
            Workload::Buffered | Workload::Written => self.appended.to_owned(),
            Workload::Durable => self.synced.to_owned(),
            Workload::Scan | Workload::Read | Workload::Reopen => self.checked.to_owned(),
        }
    }

    fn role(&self, workload: Workload) -> Role {
        if workload == Workload::Durable && !self.syncs { Role::LesserPeer } else { Role::Peer }
    }
}

/// What a mutex holds that nobody else can reach at present.
///
/// # Panics
///
/// If a thread panicked while it held the mutex.
pub fn locked<T>(mutex: &mut std::sync::Mutex<T>) -> &mut T {
    mutex.get_mut().expect("a benchmark ends when one of its threads panics")
}

/// The crates that take part in a workload, each with the rounds that `round` makes of it.
///
/// # Errors
///
/// Those of `round`.
pub fn contestants<R>(
    scale: &Scale,
    workload: Workload,
    round: impl Fn(PeerKind) -> Result<R>,
) -> Result<Vec<Contestant>>
where
    R: FnMut() -> Result<Vec<f64>> + 'static,
{
    let kinds = crate::peers::all().into_iter();
    kinds
        .filter(|kind| kind.workloads.contains(&workload) && scale.peers.iter().any(|name| name == kind.name))
        .map(|kind| Ok(Contestant::new(kind.name, kind.role(workload), kind.note(workload), round(kind)?)))
        .collect()
}
