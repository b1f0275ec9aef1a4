//! Threads that each wait until their record is durable: one of them writes and syncs for all that are there by then.
//!
//! A mutex, a condition variable, and two buffers that change places.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::{create, encode};

/// A file that several threads append to.
#[derive(Debug)]
pub struct GroupCommit {
    file: File,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    staged: Vec<u8>,
    spare: Vec<u8>,
    position: u64,
    appended: u64,
    durable: u64,
    syncs: u64,
    is_led: bool,
    /// Whether a leader could not write or sync: nobody can from then on.
    has_failed: bool,
}

impl GroupCommit {
    /// Makes the file at `path`, with `reserved_bytes` reserved for it.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn create(path: &Path, reserved_bytes: u64) -> io::Result<Self> {
        Ok(Self { file: create(path, reserved_bytes)?, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Appends a record and returns when it is durable.
    ///
    /// # Errors
    ///
    /// What the operating system says, to the thread that asked it and to all others that wait or come later. The file is of
    /// no use from then on.
    pub fn append(&self, value: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        encode(value, &mut state.staged);
        state.appended += 1;
        let mine = state.appended;
        while state.durable < mine {
            if state.has_failed {
                return Err(io::Error::other("an earlier write or sync of the file failed"));
            }
            if state.is_led {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.is_led = true;
            let (group_end, position) = (state.appended, state.position);
            let spare = std::mem::take(&mut state.spare);
            let mut group = std::mem::replace(&mut state.staged, spare);
            state.position += group.len() as u64;
            drop(state);
            let synced = self.file.write_all_at(&group, position).and_then(|()| self.file.sync_data());
            group.clear();
            state = self.lock();
            state.spare = group;
            state.is_led = false;
            match &synced {
                Ok(()) => (state.durable, state.syncs) = (group_end, state.syncs + 1),
                Err(_) => state.has_failed = true,
            }
            self.changed.notify_all();
            synced?;
        }
        Ok(())
    }

    /// How many syncs there were.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use super::*;

    fn at(directory: &tempfile::TempDir) -> std::path::PathBuf {
        directory.path().join("bare")
    }

    #[test]
    fn all_that_wait_are_synced() {
        let directory = tempfile::tempdir().unwrap();
        let file = GroupCommit::create(&at(&directory), 0).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..50).for_each(|_| file.append(b"value").unwrap()));
            }
        });
        let (mut count, written) = (0, std::fs::read(at(&directory)).unwrap());
        let mut rest = &written[..];
        while let Some((value, after)) = super::super::decode(rest) {
            assert_eq!(value, b"value");
            (count, rest) = (count + 1, after);
        }
        assert_eq!((count, rest.len()), (400, 0));
        assert!((1..=400).contains(&file.syncs()), "{} syncs", file.syncs());
    }

    // A leader whose write failed kept the lead: all others waited for ever.
    #[test]
    fn a_write_that_fails_ends_the_wait_of_all() {
        let directory = tempfile::tempdir().unwrap();
        drop(create(&at(&directory), 0).unwrap());
        // Writing to it fails: it is open for reading.
        let file = File::open(at(&directory)).unwrap();
        let file = Arc::new(GroupCommit { file, state: Mutex::default(), changed: Condvar::new() });
        let (done, failed) = mpsc::channel();
        for _ in 0..4 {
            let (file, done) = (Arc::clone(&file), done.clone());
            std::thread::spawn(move || done.send(file.append(b"value").is_err()));
        }
        for _ in 0..4 {
            assert_eq!(failed.recv_timeout(Duration::from_secs(30)), Ok(true));
        }
        assert!(file.append(b"later").is_err());
        assert_eq!(file.syncs(), 0);
    }
}
