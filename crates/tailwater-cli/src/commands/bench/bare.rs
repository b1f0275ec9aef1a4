//! The bare loops: for each question the simplest use of `pwrite`, `fdatasync` and `pread` that does the same work.
//!
//! A record is its length and its CRC-32, both `u32` little-endian, and its value. Nothing else is kept: no offsets, times
//! or keys, and nothing is recovered. There is one buffer, and writes go to space that was reserved, where the file system
//! can do that.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Size of a record's length and checksum.
const HEADER_BYTES: usize = 8;
/// How much is gathered, or read at once, in bytes.
const BUFFER_BYTES: usize = 256 * 1024;
/// How much is reserved at once, in bytes.
const STEP_BYTES: u64 = 16 << 20;

/// The size of a record in a file.
pub(super) fn record_bytes(value_bytes: usize) -> usize {
    HEADER_BYTES + value_bytes
}

fn encode(value: &[u8], buffer: &mut Vec<u8>) {
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&crc32fast::hash(value).to_le_bytes());
    buffer.extend_from_slice(value);
}

/// Splits the first record off, checked; `None` if it is not all there.
fn decode(bytes: &[u8]) -> io::Result<Option<(&[u8], &[u8])>> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let stored = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    let Some((value, rest)) = rest.split_at_checked(length) else { return Ok(None) };
    if crc32fast::hash(value) != stored {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a record does not have its checksum"));
    }
    Ok(Some((value, rest)))
}

/// A file with space reserved ahead of what is written, in steps, as Tailwater has it.
struct Reserved {
    file: File,
    end: u64,
}

impl Reserved {
    fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().create_new(true).read(true).write(true).open(path)?;
        let mut reserved = Self { file, end: 0 };
        reserved.reserve(1)?;
        // As for Tailwater, the file itself is there before anything is measured.
        reserved.file.sync_all()?;
        Ok(reserved)
    }

    fn reserve(&mut self, end: u64) -> io::Result<()> {
        if end <= self.end {
            return Ok(());
        }
        let new_end = end.next_multiple_of(STEP_BYTES);
        match fallocate(&self.file, FallocateFlags::empty(), self.end, new_end - self.end) {
            // Where it cannot be done the file grows as it is written.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.end = new_end,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.reserve(position + bytes.len() as u64)?;
        self.file.write_all_at(bytes, position)
    }
}

/// A file that one thread appends to.
pub(super) struct Appender {
    file: Reserved,
    buffer: Vec<u8>,
    position: u64,
}

impl Appender {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = Reserved::create(path)?;
        Ok(Self { file, buffer: Vec::with_capacity(BUFFER_BYTES), position: 0 })
    }

    pub(super) fn stage(&mut self, value: &[u8]) {
        encode(value, &mut self.buffer);
    }

    /// Stages a record, after writing what is staged if it finds no room in the buffer.
    pub(super) fn stage_or_write(&mut self, value: &[u8]) -> io::Result<()> {
        if self.buffer.len() + record_bytes(value.len()) > BUFFER_BYTES {
            self.write()?;
        }
        self.stage(value);
        Ok(())
    }

    /// Writes what is staged, with one `pwrite`.
    pub(super) fn write(&mut self) -> io::Result<()> {
        self.file.write(&self.buffer, self.position)?;
        self.position += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes what is staged and makes it durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.write()?;
        self.file.file.sync_data()
    }

    /// The size of what was written.
    pub(super) fn written_bytes(&self) -> u64 {
        self.position
    }

    /// The file as its readers see it.
    pub(super) fn reader(&self) -> io::Result<Reader> {
        Ok(Reader { file: self.file.file.try_clone()?, buffer: Vec::new(), start: 0, position: 0 })
    }
}

/// How far a consumer has come, on disk: what `commit` keeps.
pub(super) struct Committed {
    data: File,
    positions: File,
}

impl Committed {
    pub(super) fn create(path: &Path, of: &Appender) -> io::Result<Self> {
        Ok(Self { data: of.file.file.try_clone()?, positions: Reserved::create(path)?.file })
    }

    /// Makes the position durable, after what lies before it.
    pub(super) fn commit(&self, position: u64) -> io::Result<()> {
        self.data.sync_data()?;
        self.positions.write_all_at(&position.to_le_bytes(), 0)?;
        self.positions.sync_data()
    }
}

/// Reads a file that [`Appender`] wrote.
pub(super) struct Reader {
    file: File,
    buffer: Vec<u8>,
    /// Where in the buffer the next record begins.
    start: usize,
    /// Where in the file the buffer ends.
    position: u64,
}

impl Reader {
    /// Hands out each record up to `end`, in order, from where it stopped. Returns how many there were.
    pub(super) fn for_each(&mut self, end: u64, mut take: impl FnMut(&[u8])) -> io::Result<u64> {
        let mut count = 0;
        loop {
            while let Some((value, rest)) = decode(&self.buffer[self.start..])? {
                take(value);
                count += 1;
                self.start = self.buffer.len() - rest.len();
            }
            if self.position >= end {
                return Ok(count);
            }
            self.fill(end)?;
        }
    }

    fn fill(&mut self, end: u64) -> io::Result<()> {
        self.buffer.drain(..std::mem::take(&mut self.start));
        let kept = self.buffer.len();
        let left = usize::try_from(end - self.position).unwrap_or(usize::MAX);
        self.buffer.resize(kept + left.min(BUFFER_BYTES), 0);
        self.file.read_exact_at(&mut self.buffer[kept..], self.position)?;
        self.position += (self.buffer.len() - kept) as u64;
        Ok(())
    }

    /// Where in the file the next record begins.
    pub(super) fn position(&self) -> u64 {
        self.position - (self.buffer.len() - self.start) as u64
    }

    /// Begins anew.
    pub(super) fn rewind(&mut self) {
        self.buffer.clear();
        (self.start, self.position) = (0, 0);
    }

    /// Reads one record, all of which are of this size. Returns the size of its value.
    pub(super) fn read(&mut self, index: u64, record_bytes: usize) -> io::Result<usize> {
        self.buffer.resize(record_bytes, 0);
        self.file.read_exact_at(&mut self.buffer, index * record_bytes as u64)?;
        decode(&self.buffer)?.map(|(value, _)| value.len()).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// How far a file is written, for who reads it in another thread.
#[derive(Default)]
pub(super) struct End(AtomicU64);

impl End {
    pub(super) fn publish(&self, end: u64) {
        self.0.store(end, Ordering::Release);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// A file that threads append to, each of which waits until its record is durable: one writes and syncs for all that are
/// there by then. Two buffers change places.
pub(super) struct GroupCommit {
    /// Whoever holds this leads.
    file: Mutex<Reserved>,
    state: Mutex<Group>,
    changed: Condvar,
}

#[derive(Default)]
struct Group {
    staged: Vec<u8>,
    spare: Vec<u8>,
    position: u64,
    appended: u64,
    durable: u64,
    is_led: bool,
    /// What ended it for all.
    failure: Option<i32>,
}

impl GroupCommit {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = Mutex::new(Reserved::create(path)?);
        Ok(Self { file, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Appends a record and returns when it is durable.
    pub(super) fn append(&self, value: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        encode(value, &mut state.staged);
        state.appended += 1;
        let mine = state.appended;
        while state.durable < mine {
            if let Some(failure) = state.failure {
                return Err(io::Error::from_raw_os_error(failure));
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
            let synced = self.write_and_sync(&group, position);
            group.clear();
            state = lock(&self.state);
            state.spare = group;
            state.is_led = false;
            match &synced {
                Ok(()) => state.durable = group_end,
                Err(error) => state.failure = Some(error.raw_os_error().unwrap_or_default()),
            }
            self.changed.notify_all();
            synced?;
        }
        Ok(())
    }

    fn write_and_sync(&self, group: &[u8], position: u64) -> io::Result<()> {
        let mut file = lock(&self.file);
        file.write(group, position)?;
        file.file.sync_data()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_read_in_order_and_at_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = Appender::create(&directory.path().join("bare")).unwrap();
        let value = |index: u64| vec![u8::try_from(index % 251).unwrap(); 3_000];
        let mut reader = file.reader().unwrap();
        let mut read = 0;
        for index in 0..300 {
            file.stage_or_write(&value(index)).unwrap();
            reader
                .for_each(file.written_bytes(), |found| {
                    assert_eq!(found, value(read));
                    read += 1;
                })
                .unwrap();
        }
        file.sync().unwrap();
        assert_eq!(reader.for_each(file.written_bytes(), |_| {}).unwrap() + read, 300);
        reader.rewind();
        assert_eq!(reader.for_each(file.written_bytes(), |_| {}).unwrap(), 300);
        assert_eq!(reader.read(299, record_bytes(3_000)).unwrap(), 3_000);
        assert_ne!(reader.read(300, record_bytes(3_000)).ok(), Some(3_000), "only reserved space");
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = Appender::create(&directory.path().join("bare")).unwrap();
        file.stage(b"a record");
        file.write().unwrap();
        file.file.file.write_all_at(b"X", 10).unwrap();
        let error = file.reader().unwrap().for_each(file.written_bytes(), |_| {}).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn each_thread_is_told_when_its_record_is_durable_or_that_none_will_be() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bare");
        let group = GroupCommit::create(&path).unwrap();
        let append_in_threads = |group: &GroupCommit| -> Vec<io::Result<()>> {
            std::thread::scope(|scope| {
                let started: Vec<_> = (0..4).map(|_| scope.spawn(|| group.append(b"record"))).collect();
                started.into_iter().map(|thread| thread.join().unwrap()).collect()
            })
        };
        assert!(append_in_threads(&group).iter().all(Result::is_ok));
        assert_eq!(group.state.lock().unwrap().durable, 4);
        lock(&group.file).file = File::open(&path).unwrap();
        let read_only = group;
        assert!(append_in_threads(&read_only).iter().all(Result::is_err));
    }
}
