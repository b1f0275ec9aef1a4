//! A torn tail that cannot be kept stops the recovery, and the error is the one that the disk gave.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{append, options, read_all};
use tailwater_log::storage::{SimDisk, Storage};
use tailwater_log::{Error, Log};

/// It once told of "the log" for the reason, which a program without a log of messages does not have, and called a full
/// disk a broken one.
#[test]
fn a_tail_that_cannot_be_kept_is_told_with_what_the_disk_said() {
    let disk = SimDisk::new(4);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let log = Log::create(Arc::clone(&storage), Path::new("/log"), options()).unwrap();
    append(&log, "kept");
    let killed = disk.kill();
    drop(log);
    let segment = Path::new("/log/00000000000000000000.log");
    let mut bytes = killed.read_file(segment).unwrap();
    bytes[2000..2100].fill(b'!');
    killed.write_file(segment, &bytes).unwrap();

    let mut told = 0;
    for (errno, is_full) in [(5, false), (28, true)] {
        for nth in 1.. {
            let disk = killed.snapshot();
            disk.fail_nth(nth, errno, false);
            let storage: Arc<dyn Storage> = Arc::new(disk.clone());
            let opened = Log::open(storage, Path::new("/log"), options());
            let Err(error) = opened else { break };
            assert!(error.to_string().contains(&format!("(os error {errno})")), "{nth}: {error}");
            assert_eq!(matches!(error, Error::DiskFull { .. }), is_full, "{nth}: {error}");
            told += u32::from(error.to_string().contains("/log/quarantine"));

            disk.clear_faults();
            let storage: Arc<dyn Storage> = Arc::new(disk.clone());
            let log = Log::open(storage, Path::new("/log"), options()).unwrap();
            assert_eq!(read_all(&log), [(0, "kept".to_owned())]);
            // The recovery that failed may have come as far as to keep it.
            let kept = disk.file_paths().into_iter().filter(|path| path.starts_with("/log/quarantine"));
            assert_eq!(kept.count(), 1, "{nth}");
        }
    }
    assert!(told >= 8, "the directory, the file, its bytes, and their syncs, with each error: {told}");
}
