//! Threads that each wait until their record is durable: one of them writes and syncs for all that are there by then.
//!
//! A mutex, a condition variable, and two buffers that change places.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

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
    is_led: bool,
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
    /// What the operating system says. The file is of no use from then on.
    pub fn append(&self, value: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        encode(value, &mut state.staged);
        state.appended += 1;
        let mine = state.appended;
        while state.durable < mine {
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
            self.file.write_all_at(&group, position)?;
            self.file.sync_data()?;
            group.clear();
            state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.spare = group;
            state.durable = group_end;
            state.is_led = false;
            self.changed.notify_all();
        }
        Ok(())
    }
}
