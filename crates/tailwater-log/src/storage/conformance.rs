//! What both storages must do alike: each test runs on the real disk and on the simulated one.
//!
//! What the simulated disk allows and the real one refuses, no search through crash states can find.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};

use super::{
    Disk, EntryKind, FileHandle, OpenMode, SimDisk, Storage, create_directory_durably, read_whole, replace,
};
use crate::{Error, FilePosition};

/// Runs `test` on both storages, each time with an empty directory.
fn on_both(test: impl Fn(&Arc<dyn Storage>, &Path)) {
    let directory = tempfile::tempdir().unwrap();
    test(&(Arc::new(Disk) as Arc<dyn Storage>), directory.path());
    let simulated = SimDisk::new(7);
    simulated.create_directory(Path::new("/data")).unwrap();
    test(&(Arc::new(simulated) as Arc<dyn Storage>), Path::new("/data"));
}

fn kind_of<T>(result: Result<T, Error>) -> ErrorKind {
    match result {
        Ok(_) => panic!("it should have failed"),
        Err(Error::Io { source, .. }) => source.kind(),
        Err(other) => panic!("not an I/O error: {other}"),
    }
}

fn create(storage: &Arc<dyn Storage>, path: &Path, bytes: &[u8]) -> FileHandle {
    let file = storage.open_file(path, OpenMode::CreateNew).unwrap();
    file.write_all_at(bytes, FilePosition::ZERO).unwrap();
    file
}

fn bytes_of(storage: &Arc<dyn Storage>, path: &Path) -> Option<Vec<u8>> {
    read_whole(storage, path, 1 << 20).unwrap()
}

fn names_in(storage: &Arc<dyn Storage>, directory: &Path) -> Vec<(String, EntryKind)> {
    let mut names: Vec<_> = storage
        .list_directory(directory)
        .unwrap()
        .into_iter()
        .map(|entry| (entry.name.into_string().unwrap(), entry.kind))
        .collect();
    names.sort_by(|one, other| one.0.cmp(&other.0));
    names
}

#[test]
fn what_is_written_is_read_and_reads_stop_at_the_end() {
    on_both(|storage, directory| {
        let file = create(storage, &directory.join("file"), b"");
        assert_eq!(file.path().as_ref(), directory.join("file"));
        let bytes: Vec<u8> = (0..3000_u32).map(|number| number.to_le_bytes()[0]).collect();
        file.write_all_at(&bytes, FilePosition::new(700)).unwrap();
        assert_eq!(file.length().unwrap(), 3700);
        let mut buffer = vec![0xEE; 4000];
        assert_eq!(file.read_full_at(&mut buffer, FilePosition::ZERO).unwrap(), 3700);
        assert_eq!(buffer[..700], [0; 700], "a hole reads as zeros");
        assert_eq!(buffer[700..3700], bytes);
        assert_eq!(buffer[3700..], [0xEE; 300], "nothing is touched past the end");
        assert_eq!(file.read_at(&mut buffer, FilePosition::new(3700)).unwrap(), 0);
        assert_eq!(file.read_at(&mut buffer, FilePosition::new(1 << 40)).unwrap(), 0);
        assert_eq!(file.read_at(&mut [], FilePosition::ZERO).unwrap(), 0);
        assert_eq!(file.write_at(&[], FilePosition::new(9000)).unwrap(), 0);
        assert_eq!(file.length().unwrap(), 3700, "an empty write changes nothing");
        file.sync_data().unwrap();
        file.sync_all().unwrap();
    });
}

#[test]
fn a_second_name_is_the_same_file_and_outlives_the_first() {
    on_both(|storage, directory| {
        let (first, second) = (directory.join("first"), directory.join("second"));
        let file = create(storage, &first, b"before");
        storage.hard_link(&first, &second).unwrap();
        assert_eq!(bytes_of(storage, &second).unwrap(), b"before");
        file.write_all_at(b"behind", FilePosition::ZERO).unwrap();
        assert_eq!(bytes_of(storage, &second).unwrap(), b"behind");
        // A name that is taken, a file that is not there, and a directory are refused.
        create(storage, &directory.join("taken"), b"kept");
        assert_eq!(kind_of(storage.hard_link(&first, &directory.join("taken"))), ErrorKind::AlreadyExists);
        assert_eq!(bytes_of(storage, &directory.join("taken")).unwrap(), b"kept");
        assert_eq!(
            kind_of(storage.hard_link(&directory.join("none"), &directory.join("x"))),
            ErrorKind::NotFound
        );
        assert_eq!(kind_of(storage.hard_link(&first, &directory.join("none/x"))), ErrorKind::NotFound);
        assert_eq!(kind_of(storage.hard_link(directory, &directory.join("x"))), ErrorKind::PermissionDenied);
        storage.remove_file(&first).unwrap();
        storage.sync_directory(directory).unwrap();
        assert_eq!(bytes_of(storage, &second).unwrap(), b"behind");
    });
}

#[test]
fn bytes_cut_off_do_not_come_back() {
    on_both(|storage, directory| {
        let file = create(storage, &directory.join("file"), &[7; 2000]);
        file.set_length(700).unwrap();
        file.set_length(1500).unwrap();
        let bytes = bytes_of(storage, file.path()).unwrap();
        assert_eq!(bytes[..700], [7; 700]);
        assert_eq!(bytes[700..], [0; 800]);
    });
}

#[test]
fn allocation_makes_a_file_longer_and_never_shorter() {
    on_both(|storage, directory| {
        let file = create(storage, &directory.join("file"), b"kept");
        file.allocate(0).unwrap();
        assert_eq!(file.length().unwrap(), 4);
        file.allocate(10_000).unwrap();
        assert_eq!(file.length().unwrap(), 10_000);
        file.allocate(100).unwrap();
        assert_eq!(file.length().unwrap(), 10_000);
        let bytes = bytes_of(storage, file.path()).unwrap();
        assert_eq!(&bytes[..4], b"kept");
        assert!(bytes[4..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn a_file_is_made_only_where_there_is_none_and_opened_only_where_there_is_one() {
    on_both(|storage, directory| {
        let path = directory.join("file");
        for mode in [OpenMode::Read, OpenMode::ReadWrite] {
            let error = storage.open_file(&path, mode).unwrap_err();
            assert!(error.is_not_found(), "{error:?}");
        }
        create(storage, &path, b"first");
        assert_eq!(kind_of(storage.open_file(&path, OpenMode::CreateNew)), ErrorKind::AlreadyExists);
        assert_eq!(bytes_of(storage, &path).unwrap(), b"first");
        let absent = directory.join("absent/file");
        assert_eq!(kind_of(storage.open_file(&absent, OpenMode::CreateNew)), ErrorKind::NotFound);
        assert_eq!(kind_of(storage.open_file(&absent, OpenMode::Read)), ErrorKind::NotFound);
    });
}

#[test]
fn a_file_opened_for_reading_cannot_be_changed() {
    on_both(|storage, directory| {
        let path = directory.join("file");
        create(storage, &path, b"first");
        let file = storage.open_file(&path, OpenMode::Read).unwrap();
        assert!(file.write_at(b"x", FilePosition::ZERO).is_err());
        assert!(file.set_length(0).is_err());
        assert!(file.allocate(100).is_err());
        file.sync_data().unwrap();
        assert_eq!(bytes_of(storage, &path).unwrap(), b"first");
    });
}

#[test]
fn a_directory_is_not_opened_as_a_file() {
    on_both(|storage, directory| {
        for mode in [OpenMode::Read, OpenMode::ReadWrite, OpenMode::CreateNew] {
            assert!(storage.open_file(directory, mode).is_err(), "{mode:?}");
        }
        assert!(storage.try_lock(directory).is_err());
    });
}

#[test]
fn names_are_listed_with_what_they_stand_for() {
    on_both(|storage, directory| {
        assert_eq!(names_in(storage, directory), []);
        create(storage, &directory.join("b"), b"");
        storage.create_directory(&directory.join("a")).unwrap();
        let expected = [("a".to_owned(), EntryKind::Directory), ("b".to_owned(), EntryKind::File)];
        assert_eq!(names_in(storage, directory), expected);
        assert_eq!(storage.entry_kind(&directory.join("a")).unwrap(), Some(EntryKind::Directory));
        assert_eq!(storage.entry_kind(&directory.join("b")).unwrap(), Some(EntryKind::File));
        assert_eq!(storage.entry_kind(&directory.join("c")).unwrap(), None);
        assert_eq!(storage.entry_kind(&directory.join("b/below")).unwrap(), None);
        assert_eq!(kind_of(storage.list_directory(&directory.join("c"))), ErrorKind::NotFound);
        assert_eq!(kind_of(storage.list_directory(&directory.join("b"))), ErrorKind::NotADirectory);
        storage.sync_directory(directory).unwrap();
        assert_eq!(kind_of(storage.sync_directory(&directory.join("c"))), ErrorKind::NotFound);
        assert_eq!(kind_of(storage.sync_directory(&directory.join("b"))), ErrorKind::NotADirectory);
    });
}

#[test]
fn a_rename_replaces_the_file_of_that_name_and_keeps_open_handles() {
    on_both(|storage, directory| {
        let (from, to) = (directory.join("from"), directory.join("to"));
        let new = create(storage, &from, b"new");
        let old = create(storage, &to, b"old");
        storage.rename(&from, &to).unwrap();
        assert_eq!(names_in(storage, directory), [("to".to_owned(), EntryKind::File)]);
        assert_eq!(bytes_of(storage, &to).unwrap(), b"new");
        let mut buffer = [0; 3];
        old.read_full_at(&mut buffer, FilePosition::ZERO).unwrap();
        assert_eq!(&buffer, b"old", "a replaced file stays readable");
        new.write_all_at(b"n2w", FilePosition::ZERO).unwrap();
        assert_eq!(bytes_of(storage, &to).unwrap(), b"n2w", "a handle follows its file");
        storage.rename(&to, &to).unwrap();
        assert_eq!(bytes_of(storage, &to).unwrap(), b"n2w", "a rename onto itself is none");
        assert_eq!(kind_of(storage.rename(&from, &to)), ErrorKind::NotFound);
        assert_eq!(kind_of(storage.rename(&to, &directory.join("absent/to"))), ErrorKind::NotFound);
    });
}

#[test]
fn a_rename_mixes_up_no_file_with_a_directory() {
    on_both(|storage, directory| {
        let path = |name: &str| -> PathBuf { directory.join(name) };
        create(storage, &path("file"), b"kept");
        storage.create_directory(&path("empty")).unwrap();
        storage.create_directory(&path("full")).unwrap();
        create(storage, &path("full/file"), b"inside");
        assert_eq!(kind_of(storage.rename(&path("file"), &path("empty"))), ErrorKind::IsADirectory);
        assert_eq!(kind_of(storage.rename(&path("empty"), &path("file"))), ErrorKind::NotADirectory);
        assert_eq!(kind_of(storage.rename(&path("empty"), &path("full"))), ErrorKind::DirectoryNotEmpty);
        assert_eq!(kind_of(storage.rename(&path("full"), &path("full/below"))), ErrorKind::InvalidInput);
        storage.rename(&path("full"), &path("empty")).unwrap();
        assert_eq!(bytes_of(storage, &path("empty/file")).unwrap(), b"inside");
        storage.rename(&path("empty"), &path("moved")).unwrap();
        let expected = [("file".to_owned(), EntryKind::File), ("moved".to_owned(), EntryKind::Directory)];
        assert_eq!(names_in(storage, directory), expected);
    });
}

#[test]
fn removed_files_stay_readable_and_only_empty_directories_are_removed() {
    on_both(|storage, directory| {
        let inside = directory.join("inside");
        storage.create_directory(&inside).unwrap();
        assert_eq!(kind_of(storage.create_directory(&inside)), ErrorKind::AlreadyExists);
        assert_eq!(kind_of(storage.create_directory(&directory.join("a/b"))), ErrorKind::NotFound);
        let file = create(storage, &inside.join("file"), b"bytes");
        assert_eq!(kind_of(storage.remove_directory(&inside)), ErrorKind::DirectoryNotEmpty);
        assert_eq!(kind_of(storage.remove_directory(file.path())), ErrorKind::NotADirectory);
        assert_eq!(kind_of(storage.remove_file(&inside)), ErrorKind::IsADirectory);
        storage.remove_file(&inside.join("file")).unwrap();
        assert_eq!(kind_of(storage.remove_file(&inside.join("file"))), ErrorKind::NotFound);
        let mut buffer = [0; 5];
        assert_eq!(file.read_full_at(&mut buffer, FilePosition::ZERO).unwrap(), 5);
        assert_eq!(&buffer, b"bytes");
        file.write_all_at(b"more", FilePosition::ZERO).unwrap();
        file.sync_data().unwrap();
        storage.remove_directory(&inside).unwrap();
        assert_eq!(names_in(storage, directory), []);
    });
}

#[test]
fn a_file_is_replaced_whole_and_a_leftover_does_no_harm() {
    on_both(|storage, directory| {
        let path = directory.join("file");
        replace(storage, &path, b"first").unwrap();
        create(storage, &directory.join("file.tmp"), b"left over from a crash, and longer");
        replace(storage, &path, b"second").unwrap();
        assert_eq!(bytes_of(storage, &path).unwrap(), b"second");
        assert_eq!(names_in(storage, directory), [("file".to_owned(), EntryKind::File)]);
    });
}

#[test]
fn a_file_that_is_absent_or_too_long_is_told_apart() {
    on_both(|storage, directory| {
        let path = directory.join("file");
        assert_eq!(read_whole(storage, &path, 10).unwrap(), None);
        create(storage, &path, &[7; 10]);
        assert_eq!(read_whole(storage, &path, 10).unwrap().unwrap(), [7; 10]);
        assert_eq!(kind_of(read_whole(storage, &path, 9)), ErrorKind::InvalidData);
    });
}

#[test]
fn directories_are_made_with_their_parents_and_again() {
    on_both(|storage, directory| {
        let path = directory.join("a/b/c");
        create_directory_durably(storage, &path).unwrap();
        create_directory_durably(storage, &path).unwrap();
        assert_eq!(storage.entry_kind(&path).unwrap(), Some(EntryKind::Directory));
        create(storage, &directory.join("file"), b"");
        assert_eq!(
            kind_of(create_directory_durably(storage, &directory.join("file"))),
            ErrorKind::NotADirectory
        );
        assert!(create_directory_durably(storage, &directory.join("file/below")).is_err());
    });
}

#[test]
fn a_lock_is_held_once_until_it_is_dropped() {
    on_both(|storage, directory| {
        let path = directory.join("LOCK");
        let held = storage.try_lock(&path).unwrap().unwrap();
        assert!(storage.try_lock(&path).unwrap().is_none());
        held.set_holder("a long name that is cut").unwrap();
        held.set_holder("short").unwrap();
        assert_eq!(bytes_of(storage, &path).unwrap(), b"short");
        assert!(held.is_current().unwrap());
        storage.remove_file(&path).unwrap();
        assert!(!held.is_current().unwrap());
        let other = storage.try_lock(&path).unwrap().unwrap();
        assert!(other.is_current().unwrap());
        assert!(!held.is_current().unwrap(), "another file has the name now");
        drop(held);
        assert!(storage.try_lock(&path).unwrap().is_none(), "dropping one lock frees no other");
        drop(other);
        assert!(storage.try_lock(&path).unwrap().is_some());
    });
}

#[test]
fn of_many_threads_one_gets_the_lock_and_the_others_none() {
    on_both(|storage, directory| {
        for round in 0..50 {
            let path = directory.join(format!("LOCK-{round}"));
            let (start, end) = (Barrier::new(4), Barrier::new(4));
            let held: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            start.wait();
                            let lock = storage.try_lock(&path);
                            end.wait();
                            usize::from(lock.unwrap().is_some())
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(held, 1, "round {round}");
        }
    });
}

#[test]
fn local_disks_are_not_taken_for_network_file_systems() {
    on_both(|storage, directory| {
        storage.network_file_system(directory).unwrap();
        assert_ne!(storage.random(), storage.random());
    });
    assert_eq!(Disk.network_file_system(Path::new("/proc")).unwrap(), None);
}
