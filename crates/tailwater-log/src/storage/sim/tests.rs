//! What a power cut, a fault, a full disk and a killed process do to the simulated disk.

use std::path::Path;

use super::{Effect, Fault, FaultAction, FaultTarget, SimDisk};
use crate::storage::{FileHandle, OpenMode, Storage};
use crate::{Error, FilePosition};

fn file(disk: &SimDisk, path: &str) -> FileHandle {
    disk.open_file(path.as_ref(), OpenMode::CreateNew).unwrap()
}

fn content(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    disk.read_file(path.as_ref())
}

const EIO: i32 = 5;

#[test]
fn a_name_needs_a_directory_sync_and_bytes_a_file_sync() {
    let disk = SimDisk::new(0);
    let handle = file(&disk, "/a");
    handle.write_all_at(b"x", FilePosition::ZERO).unwrap();
    handle.sync_data().unwrap();
    assert_eq!(content(&disk.crash(|_, _| false), "/a"), None);
    disk.sync_directory("/".as_ref()).unwrap();
    assert_eq!(content(&disk.crash(|_, _| false), "/a").unwrap(), b"x");
    disk.rename("/a".as_ref(), "/b".as_ref()).unwrap();
    let neither_synced = disk.crash(|_, effect| !matches!(effect, Effect::Name { target: None, .. }));
    assert_eq!(neither_synced.file_paths().len(), 2, "each name on its own");
}

#[test]
fn sectors_survive_each_on_its_own_and_in_each_version() {
    let disk = SimDisk::new(0);
    let handle = file(&disk, "/a");
    disk.sync_directory("/".as_ref()).unwrap();
    handle.set_length(1024).unwrap();
    handle.sync_all().unwrap();
    handle.write_all_at(&[1; 1024], FilePosition::ZERO).unwrap();
    handle.write_all_at(&[2; 512], FilePosition::ZERO).unwrap();
    assert_eq!(disk.pending(), 3);
    let bytes = |survivors: &[usize]| {
        let after = content(&disk.crash(|index, _| survivors.contains(&index)), "/a").unwrap();
        (after[0], after[512])
    };
    assert_eq!(bytes(&[]), (0, 0));
    assert_eq!(bytes(&[0]), (1, 0));
    assert_eq!(bytes(&[1]), (0, 1));
    assert_eq!(bytes(&[0, 1, 2]), (2, 1));
}

#[test]
fn bytes_beyond_a_length_that_did_not_survive_are_gone() {
    let disk = SimDisk::new(0);
    let handle = file(&disk, "/a");
    disk.sync_directory("/".as_ref()).unwrap();
    handle.write_all_at(&[1; 700], FilePosition::ZERO).unwrap();
    let after = disk.crash(|_, effect| matches!(effect, Effect::Sector { .. }));
    assert_eq!(content(&after, "/a").unwrap(), b"");
    let after = disk.crash(|_, effect| matches!(effect, Effect::Length { .. }));
    assert_eq!(content(&after, "/a").unwrap(), [0; 700]);
}

#[test]
fn what_a_failed_sync_dropped_becomes_durable_only_after_a_restart() {
    let disk = SimDisk::new(0);
    let handle = file(&disk, "/a");
    disk.sync_directory("/".as_ref()).unwrap();
    handle.write_all_at(b"x", FilePosition::ZERO).unwrap();
    disk.fail_nth(1, EIO, false);
    assert!(handle.sync_data().is_err());
    handle.write_all_at(b"x", FilePosition::ZERO).unwrap();
    handle.sync_data().unwrap();
    assert_eq!(content(&disk, "/a").unwrap(), b"x", "reads show the page cache");
    assert_eq!(content(&disk.crash(|_, _| false), "/a").unwrap(), [0]);
    let killed = disk.kill();
    let handle = killed.open_file("/a".as_ref(), OpenMode::ReadWrite).unwrap();
    handle.sync_data().unwrap();
    assert_eq!(content(&killed.crash(|_, _| false), "/a").unwrap(), [0], "the machine goes on");
    let restarted = killed.crash(|_, _| false);
    let handle = restarted.open_file("/a".as_ref(), OpenMode::ReadWrite).unwrap();
    handle.write_all_at(b"y", FilePosition::ZERO).unwrap();
    handle.sync_data().unwrap();
    assert_eq!(content(&restarted.crash(|_, _| false), "/a").unwrap(), b"y");
}

#[test]
fn names_that_a_failed_directory_sync_dropped_become_durable_only_after_a_restart() {
    let disk = SimDisk::new(0);
    file(&disk, "/a");
    let target = FaultTarget::Syncs;
    disk.plan_fault(Fault { target, nth: 1, action: FaultAction::Errno(EIO), is_lasting: false });
    assert!(disk.sync_directory("/".as_ref()).is_err());
    file(&disk, "/b");
    disk.sync_directory("/".as_ref()).unwrap();
    assert_eq!(disk.crash(|_, _| false).file_paths(), [Path::new("/b")]);
    assert_eq!(disk.crash(|_, _| true).file_paths().len(), 2, "it may have reached the disk all the same");
}

#[test]
fn opens_reads_and_syncs_fail_on_their_own_count() {
    let disk = SimDisk::new(0);
    let handle = file(&disk, "/a");
    for (target, nth) in [(FaultTarget::Opens, 2), (FaultTarget::Reads, 2), (FaultTarget::Syncs, 2)] {
        disk.plan_fault(Fault { target, nth, action: FaultAction::Errno(EIO), is_lasting: false });
    }
    let open = || disk.open_file("/a".as_ref(), OpenMode::Read).map(drop);
    let read = || handle.read_at(&mut [0], FilePosition::ZERO).map(drop);
    let sync = || disk.sync_directory("/".as_ref());
    for (name, results) in [
        ("open", [open(), open(), open()]),
        ("read", [read(), read(), read()]),
        ("sync", [sync(), sync(), sync()]),
    ] {
        assert_eq!(results.map(|result| result.is_ok()), [true, false, true], "{name}");
    }
}

#[test]
fn a_torn_write_fails_and_leaves_its_first_half() {
    let disk = SimDisk::new(0);
    let handle = file(&disk, "/a");
    let action = FaultAction::TornWrite(EIO);
    disk.plan_fault(Fault { target: FaultTarget::Changes, nth: 1, action, is_lasting: false });
    assert!(handle.write_at(&[1; 10], FilePosition::ZERO).is_err());
    assert_eq!(content(&disk, "/a").unwrap(), [1; 5]);
}

#[test]
fn a_flipped_bit_is_on_the_disk_and_nowhere_else() {
    let disk = SimDisk::new(0);
    disk.write_file("/a".as_ref(), &[0; 600]).unwrap();
    let before = disk.crash(|_, _| false);
    disk.flip_bit("/a".as_ref(), 8 * 513 + 2).unwrap();
    let mut expected = [0; 600];
    expected[513] = 4;
    assert_eq!(content(&disk.crash(|_, _| false), "/a").unwrap(), expected);
    assert_eq!(content(&before, "/a").unwrap(), [0; 600], "the disks share no bytes that change");
    disk.flip_bit("/a".as_ref(), 8 * 513 + 2).unwrap();
    assert_eq!(disk.content_hash(), before.content_hash());
    assert!(disk.flip_bit("/a".as_ref(), 8 * 600).is_err());
    assert!(disk.flip_bit("/b".as_ref(), 0).is_err());
}

#[test]
fn handles_of_a_killed_process_are_dead_and_what_it_wrote_is_there() {
    let disk = SimDisk::new(0);
    let handle = file(&disk, "/a");
    handle.write_all_at(b"x", FilePosition::ZERO).unwrap();
    let pending = disk.pending();
    let next = disk.kill();
    assert!(handle.write_all_at(b"y", FilePosition::ZERO).is_err());
    assert!(handle.sync_data().is_err());
    assert_eq!(content(&next, "/a").unwrap(), b"x");
    assert_eq!(next.pending(), pending, "what was not durable still is not");
}

#[test]
fn after_a_power_cut_nothing_works() {
    let disk = SimDisk::new(0);
    let handle = file(&disk, "/a");
    disk.cut_power_after(1);
    handle.write_all_at(b"x", FilePosition::ZERO).unwrap();
    // It goes with the operation, not with the next one: not even a read comes between.
    assert!(handle.length().is_err());
    let error = handle.write_all_at(b"y", FilePosition::ZERO).unwrap_err();
    assert!(error.to_string().contains("simulated power cut"), "{error}");
    assert!(handle.read_at(&mut [0], FilePosition::ZERO).is_err());
    assert!(!disk.is_powered());
}

#[test]
fn a_full_disk_refuses_and_takes_again_when_there_is_room() {
    let disk = SimDisk::new(0);
    let (first, second) = (file(&disk, "/a"), file(&disk, "/b"));
    disk.set_capacity(Some(2048));
    first.allocate(1024).unwrap();
    second.write_all_at(&[1; 1024], FilePosition::ZERO).unwrap();
    assert!(matches!(second.write_at(&[1], FilePosition::new(1024)), Err(Error::DiskFull { .. })));
    first.write_all_at(&[1; 1024], FilePosition::ZERO).unwrap();
    disk.remove_file("/a".as_ref()).unwrap();
    second.write_all_at(&[1; 1024], FilePosition::new(1024)).unwrap();
}

#[test]
fn a_lock_is_held_once_and_freed_by_dropping_or_killing() {
    let disk = SimDisk::new(0);
    let lock = disk.try_lock("/LOCK".as_ref()).unwrap();
    assert!(lock.is_some());
    assert!(disk.try_lock("/LOCK".as_ref()).unwrap().is_none());
    assert!(disk.kill().try_lock("/LOCK".as_ref()).unwrap().is_some());
}
