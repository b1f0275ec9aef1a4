//! Many logs under one bound of open files, on a real disk: the bound holds, and nothing is lost, doubled or stuck.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

use std::fs;
use std::path::Path;
use std::sync::{Arc, Barrier};

use tailwater_log::storage::{Disk, Storage};
use tailwater_log::{
    Durability, FetchIsolation, FetchLimits, Log, LogOptions, NewRecord, Offset, OpenFiles, PartitionId,
    PartitionIdentity, ReadMode, TopicId, WhenFull,
};

const LOGS: u32 = 200;
const MOST_OPEN: usize = 16;
const THREADS: u32 = 4;
const ROUNDS: u64 = 12;

fn options(number: u32, files: &Arc<OpenFiles>, read_mode: ReadMode) -> LogOptions {
    let partition = PartitionId::new(number);
    let identity = PartitionIdentity { topic_id: TopicId::from_bytes([7; 16]), partition };
    let mut options = LogOptions { open_files: Some(Arc::clone(files)), ..LogOptions::new(identity) };
    options.config.segment_bytes = 4096;
    options.config.read_mode = read_mode;
    options
}

/// How many files below `directory` this process has open: of its locks, and others.
fn open_files(directory: &Path) -> (usize, usize) {
    let links =
        fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let mine: Vec<_> = links.filter(|path| path.starts_with(directory)).collect();
    let locks = mine.iter().filter(|path| path.ends_with("LOCK")).count();
    (locks, mine.len() - locks)
}

fn value(log: u32, number: u64) -> Vec<u8> {
    let mut value = format!("record {number} of log {log} ").into_bytes();
    value.resize(value.len() + (number % 7) as usize * 100, b'.');
    value
}

/// Appends to all logs in turn, from several threads at once, and reads them from others.
fn use_many_logs(read_mode: ReadMode) {
    let directory = tempfile::tempdir().unwrap();
    let files = Arc::new(OpenFiles::at_most(MOST_OPEN));
    let storage: Arc<dyn Storage> = Arc::new(Disk);
    let path = |number: u32| directory.path().join(number.to_string());
    let logs: Vec<_> = (0..LOGS)
        .map(|number| {
            Log::create(Arc::clone(&storage), &path(number), options(number, &files, read_mode)).unwrap()
        })
        .collect();
    let most_open = || {
        let (locks, others) = open_files(directory.path());
        assert_eq!(locks, LOGS as usize, "each log holds its lock");
        others
    };
    assert!(most_open() <= MOST_OPEN, "{} are open", most_open());

    let start = Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (logs, start, files) = (&logs, &start, &files);
            scope.spawn(move || {
                start.wait();
                for round in 0..ROUNDS {
                    // Half of the logs are this thread's own, the others are appended to by two threads at once.
                    for number in (0..LOGS).filter(|number| number % THREADS == thread) {
                        let durability = [Durability::Durable, Durability::Written, Durability::Buffered]
                            [(round % 3) as usize];
                        let log = &logs[number as usize];
                        let value = value(number, round);
                        let receipt =
                            log.append(&[NewRecord::new(&value)], Some(durability), WhenFull::Wait).unwrap();
                        assert_eq!(receipt.wait().unwrap().offsets.start.get(), round);
                        // And another thread's is read meanwhile.
                        let other = &logs[((number + 1) % LOGS) as usize];
                        other
                            .fetch(Offset::ZERO, FetchLimits::default(), FetchIsolation::LogEnd, None)
                            .unwrap();
                    }
                    if round % 5 == 4 {
                        files.close_unused();
                    }
                }
            });
        }
    });
    // Each thread holds what it works with at that moment.
    assert!(most_open() <= MOST_OPEN + 4 * THREADS as usize, "{} are open", most_open());
    files.close_unused();
    assert_eq!(most_open(), 0, "none is in use");

    let read = |log: &Log, number: u32| {
        let end = log.log_end_offset();
        assert_eq!(end, Offset::new(ROUNDS));
        let mut next = Offset::ZERO;
        while next < end {
            let fetched = log.fetch(next, FetchLimits::default(), FetchIsolation::LogEnd, None).unwrap();
            for record in fetched.iter() {
                assert_eq!(record.value(), Some(&value(number, record.offset().get())[..]));
            }
            next = fetched.next_offset();
        }
    };
    for (number, log) in (0..).zip(&logs) {
        read(log, number);
    }
    assert!(most_open() <= MOST_OPEN, "{} are open", most_open());
    for log in logs {
        log.close().unwrap();
    }
    assert_eq!(open_files(directory.path()).0, 0);
    for number in 0..LOGS {
        let log = Log::open(Arc::clone(&storage), &path(number), options(number, &files, read_mode)).unwrap();
        assert!(log.recovery_report().corruption.is_none());
        read(&log, number);
    }
}

#[test]
fn many_mapped_logs_share_a_few_open_files() {
    use_many_logs(ReadMode::Mapped);
}

#[test]
fn many_logs_read_by_position_share_a_few_open_files() {
    use_many_logs(ReadMode::Positional);
}

#[test]
fn a_file_that_was_exchanged_while_it_was_closed_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let files = Arc::new(OpenFiles::at_most(8));
    let storage: Arc<dyn Storage> = Arc::new(Disk);
    let [mine, other] = [1, 2].map(|number| {
        let path = directory.path().join(number.to_string());
        let log =
            Log::create(Arc::clone(&storage), &path, options(number, &files, ReadMode::Mapped)).unwrap();
        log.append(&[NewRecord::new(b"kept")], None, WhenFull::Wait).unwrap().wait().unwrap();
        log
    });
    files.close_unused();
    let name = "00000000000000000000.log";
    fs::copy(other.directory().join(name), mine.directory().join("copy")).unwrap();
    fs::rename(mine.directory().join("copy"), mine.directory().join(name)).unwrap();
    let read = mine.fetch(Offset::ZERO, FetchLimits::default(), FetchIsolation::Visible, None).unwrap_err();
    assert!(read.to_string().contains(name), "{read}");
    let receipt = mine.append(&[NewRecord::new(b"lost?")], None, WhenFull::Wait).unwrap();
    let refused = receipt.wait().unwrap_err();
    assert!(refused.to_string().contains(name), "{refused}");
    assert!(mine.is_failed());
}
