//! Appends to a log whose disk does not answer: they wait for room at most `max_block_ms`, and change nothing then.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod common;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tailwater_log::storage::{DirectoryEntry, FileHandle, Map, OpenMode, SimDisk, Storage, StorageFile};
use tailwater_log::{Durability, Error, FilePosition, Log, NewRecord, Offset, Receipt, Result, WhenFull};

use common::{append, read_all, with};

const MAX_BLOCK_MS: u64 = 150;
const STAGING_BYTES: u32 = 4096;

/// Which calls do not return for the time being.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stalled {
    Nothing,
    Writes,
    DataSyncs,
}

/// A simulated disk some of whose calls can be held up.
#[derive(Clone, Debug)]
struct StallingDisk {
    disk: SimDisk,
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct Gate {
    stalled: Mutex<(Stalled, u32)>,
    changed: Condvar,
}

impl Gate {
    fn stall(&self, what: Stalled) {
        *self.stalled.lock().unwrap() = (what, 0);
        self.changed.notify_all();
    }

    /// Waits until a call is held up.
    fn wait_for_call(&self) {
        let stalled = self.stalled.lock().unwrap();
        drop(self.changed.wait_while(stalled, |(_, waiting)| *waiting == 0).unwrap());
    }

    fn pass(&self, what: Stalled) {
        let mut stalled = self.stalled.lock().unwrap();
        while stalled.0 == what {
            stalled.1 += 1;
            self.changed.notify_all();
            stalled = self.changed.wait(stalled).unwrap();
        }
    }
}

impl Storage for StallingDisk {
    fn open_file(&self, path: &Path, mode: OpenMode) -> Result<FileHandle> {
        let file = self.disk.open_file(path, mode)?;
        Ok(Arc::new(StallingFile { file, gate: Arc::clone(&self.gate) }))
    }

    fn list_directory(&self, directory: &Path) -> Result<Vec<DirectoryEntry>> {
        self.disk.list_directory(directory)
    }

    forward_to_disk!();
}

#[derive(Debug)]
struct StallingFile {
    file: FileHandle,
    gate: Arc<Gate>,
}

impl StorageFile for StallingFile {
    fn path(&self) -> &Arc<Path> {
        self.file.path()
    }

    fn read_at(&self, buffer: &mut [u8], position: FilePosition) -> Result<usize> {
        self.file.read_at(buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: FilePosition) -> Result<usize> {
        self.gate.pass(Stalled::Writes);
        self.file.write_at(bytes, position)
    }

    fn allocate(&self, length: u64) -> Result<()> {
        self.file.allocate(length)
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.file.set_length(length)
    }

    fn length(&self) -> Result<u64> {
        self.file.length()
    }

    fn sync_data(&self) -> Result<()> {
        self.gate.pass(Stalled::DataSyncs);
        self.file.sync_data()
    }

    fn sync_all(&self) -> Result<()> {
        self.file.sync_all()
    }

    fn map(&self, length: u64) -> Result<Option<Map>> {
        self.file.map(length)
    }
}

fn stalling_log(segment_bytes: u32) -> (Log, Arc<Gate>) {
    let gate = Arc::new(Gate { stalled: Mutex::new((Stalled::Nothing, 0)), changed: Condvar::new() });
    let disk = StallingDisk { disk: SimDisk::new(1), gate: Arc::clone(&gate) };
    let options = with(|config| {
        config.max_block_ms = MAX_BLOCK_MS;
        config.staging_bytes = STAGING_BYTES;
        config.segment_bytes = segment_bytes;
    });
    (Log::create(Arc::new(disk), "/log".as_ref(), options).unwrap(), gate)
}

fn stage(log: &Log, value: &[u8], when_full: WhenFull) -> Result<Receipt> {
    log.append(&[NewRecord::new(value)], Some(Durability::Buffered), when_full)
}

/// Appends until that is refused, and checks when, with what, and that nothing changed.
fn fill(log: &Log, value: &[u8], when_full: WhenFull) {
    for _ in 0..100 {
        let (end, start) = (log.log_end_offset(), Instant::now());
        let Err(error) = stage(log, value, when_full) else { continue };
        let elapsed = start.elapsed();
        assert!(matches!(error, Error::StagingFull { limit_bytes: 4096, .. }), "{error}");
        assert_eq!(log.log_end_offset(), end, "no offset was given out");
        if when_full == WhenFull::Wait {
            assert!(elapsed >= Duration::from_millis(MAX_BLOCK_MS), "gave up after {elapsed:?}");
        }
        assert!(elapsed < Duration::from_millis(MAX_BLOCK_MS) + Duration::from_secs(20), "took {elapsed:?}");
        return;
    }
    panic!("nothing was refused");
}

fn check_all(log: &Log, first: &str) {
    log.sync().unwrap();
    let all = read_all(log);
    assert_eq!(all[0].1, first);
    assert!(all.iter().zip(0..).all(|((offset, _), at)| *offset == at));
    assert_eq!(Offset::new(all.len() as u64), log.log_end_offset());
    assert_eq!(log.durable_offset(), log.log_end_offset());
}

#[test]
fn an_append_waits_for_room_at_most_max_block_ms_while_a_write_stalls() {
    let (log, gate) = stalling_log(1 << 20);
    append(&log, "first");
    gate.stall(Stalled::Writes);
    std::thread::scope(|scope| {
        scope.spawn(|| append(&log, "held up"));
        gate.wait_for_call();
        fill(&log, &[b'w'; 500], WhenFull::Fail);
        fill(&log, &[b'w'; 500], WhenFull::Wait);
        gate.stall(Stalled::Nothing);
    });
    append(&log, "there is room again");
    check_all(&log, "first");
}

#[test]
fn an_append_waits_for_a_roll_at_most_max_block_ms_while_a_sync_stalls() {
    // A roll waits for a sync of the segment before. Where another thread was at that sync, the append once waited for
    // it however long it took.
    let (log, gate) = stalling_log(8192);
    append(&log, "first");
    // Rolled once: the next roll has to wait for the sync of this one.
    while log.stats().unwrap().segment_count == 1 {
        drop(stage(&log, &[b'w'; 500], WhenFull::Wait).unwrap());
    }
    gate.stall(Stalled::DataSyncs);
    std::thread::scope(|scope| {
        scope.spawn(|| log.sync());
        gate.wait_for_call();
        // A watchdog: without the deadline the next line waits for the sync.
        let (done, finished) = std::sync::mpsc::channel::<()>();
        let opener = Arc::clone(&gate);
        scope.spawn(move || {
            let _ = finished.recv_timeout(Duration::from_secs(30));
            opener.stall(Stalled::Nothing);
        });
        fill(&log, &[b'w'; 500], WhenFull::Fail);
        fill(&log, &[b'w'; 500], WhenFull::Wait);
        drop(done);
    });
    append(&log, "there is room again");
    check_all(&log, "first");
}
