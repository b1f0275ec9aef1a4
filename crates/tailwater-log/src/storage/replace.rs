//! Replacing small files whole, and making directories that stay.

use std::path::Path;
use std::sync::Arc;

use super::{EntryKind, FileHandle, OpenMode, Storage};
use crate::mistakes::{Mistake, is_planted};
use crate::{Error, FilePosition, IoOperation, Result};

/// Makes an empty file for something unfinished, in the place of whatever an interrupted operation left there.
///
/// What is there is unlinked, never cut: after a power cut within a rename both names may stand for the finished file.
pub(crate) fn create_temporary(storage: &Arc<dyn Storage>, path: &Path) -> Result<FileHandle> {
    match storage.open_file(path, OpenMode::CreateNew) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {
            if is_planted(Mistake::ReuseTemporaryFile) {
                let file = storage.open_file(path, OpenMode::ReadWrite)?;
                return file.set_length(0).map(|()| file);
            }
            storage.remove_file(path)?;
            storage.open_file(path, OpenMode::CreateNew)
        }
        created => created,
    }
}

/// Puts a file with `bytes` in the place of whatever is at `path`: written aside, synced, renamed, directory synced.
/// After a power cut there is the old file or the new one.
///
/// # Errors
///
/// [`Error::Io`], [`Error::DiskFull`]. After an error in the last step either file may be found later.
pub fn replace(storage: &Arc<dyn Storage>, path: &Path, bytes: &[u8]) -> Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".tmp");
    let aside = Path::new(&aside);
    let written = (|| {
        let file = create_temporary(storage, aside)?;
        file.write_all_at(bytes, FilePosition::ZERO)?;
        file.sync_all()
    })();
    if let Err(error) = written {
        // The next attempt would remove it anyway.
        let _ = storage.remove_file(aside);
        return Err(error);
    }
    storage.rename(aside, path)?;
    storage.sync_directory(parent_of(path))
}

/// Reads a whole file, or `None` if there is none.
///
/// # Errors
///
/// [`Error::Io`]; a file over `max_bytes` answers it with `InvalidData`.
pub fn read_whole(storage: &Arc<dyn Storage>, path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>> {
    let file = match storage.open_file(path, OpenMode::Read) {
        Err(error) if error.is_not_found() => return Ok(None),
        opened => opened?,
    };
    let length = file.length()?;
    if length > max_bytes {
        let text = format!("it has {length} bytes, and {max_bytes} bytes at most were expected");
        let error = std::io::Error::new(std::io::ErrorKind::InvalidData, text);
        return Err(Error::io(IoOperation::Read, path, error));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    let count = file.read_full_at(&mut bytes, FilePosition::ZERO)?;
    bytes.truncate(count);
    Ok(Some(bytes))
}

/// Makes `directory` with whatever parents are missing, and makes their names durable.
///
/// The name of a directory that is there already is made durable too: whoever made it may have died before that.
///
/// # Errors
///
/// [`Error::Io`]; with `NotADirectory` if something else has the name.
pub fn create_directory_durably(storage: &Arc<dyn Storage>, directory: &Path) -> Result<()> {
    let parent = parent_of(directory);
    match storage.entry_kind(directory)? {
        Some(EntryKind::Directory) => {
            return match storage.sync_directory(parent) {
                // A parent that this process may not read was there before any program of its user's.
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                    Ok(())
                }
                synced => synced,
            };
        }
        Some(EntryKind::Other) | None => {}
        Some(EntryKind::File) => {
            let error = std::io::ErrorKind::NotADirectory.into();
            return Err(Error::io(IoOperation::Create, directory, error));
        }
    }
    if parent != directory {
        create_directory_durably(storage, parent)?;
    }
    let is_made = match storage.create_directory(directory) {
        // A link to a directory, or somebody else was faster.
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => false,
        made => made.map(|()| true)?,
    };
    storage.sync_directory(parent).inspect_err(|_| {
        if is_made {
            // Another attempt must make the name anew: a sync that succeeds after one that failed says nothing about it.
            let _ = storage.remove_directory(directory);
        }
    })
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::SimDisk;
    use super::*;

    const FILE: &str = "/file";

    fn shared(disk: &SimDisk) -> Arc<dyn Storage> {
        Arc::new(disk.clone())
    }

    #[test]
    fn a_power_cut_at_any_operation_leaves_the_old_file_or_the_new_one() {
        let (old, new) = (vec![1; 3000], vec![2; 2000]);
        let mut states = BTreeSet::new();
        let mut was_cut = true;
        let mut cut = 0;
        while was_cut {
            let disk = SimDisk::new(1);
            replace(&shared(&disk), FILE.as_ref(), &old).unwrap();
            disk.cut_power_after(cut);
            let was_replaced = replace(&shared(&disk), FILE.as_ref(), &new).is_ok();
            was_cut = !disk.is_powered();
            assert!(disk.pending() <= 12, "few enough for every subset");
            for choice in 0..1_u64 << disk.pending() {
                let crashed = disk.crash(|index, _| choice >> index & 1 == 1);
                let content = crashed.read_file(FILE.as_ref()).unwrap();
                assert!(content == old || content == new, "torn: {cut} operations, choice {choice:b}");
                assert!(!was_replaced || content == new, "lost: {cut} operations, choice {choice:b}");
                states.insert(crashed.content_hash());
                // What was left aside, also as a second name of the file, is not mixed up with the next.
                replace(&shared(&crashed), FILE.as_ref(), &old).unwrap();
                assert_eq!(crashed.crash(|_, _| false).read_file(FILE.as_ref()).unwrap(), old);
            }
            cut += 1;
        }
        assert!(cut > 5 && states.len() > 10, "{cut} cuts, {} states", states.len());
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_file() {
        let whole = SimDisk::new(1);
        replace(&shared(&whole), FILE.as_ref(), b"old").unwrap();
        // All operations but the last, the sync of the directory, after which the new one is there.
        for nth in 1..whole.operation_count() {
            let disk = SimDisk::new(1);
            replace(&shared(&disk), FILE.as_ref(), b"old").unwrap();
            disk.fail_nth(nth, 5, false);
            assert!(replace(&shared(&disk), FILE.as_ref(), b"new").is_err(), "operation {nth}");
            assert_eq!(disk.read_file(FILE.as_ref()).unwrap(), b"old", "operation {nth}");
            replace(&shared(&disk), FILE.as_ref(), b"new").unwrap();
            assert_eq!(disk.crash(|_, _| false).read_file(FILE.as_ref()).unwrap(), b"new", "operation {nth}");
        }
    }

    #[test]
    fn directories_made_durably_survive_also_those_of_a_killed_process() {
        let disk = SimDisk::new(1);
        disk.create_directory("/a".as_ref()).unwrap();
        let disk = disk.kill();
        create_directory_durably(&shared(&disk), "/a/b/c".as_ref()).unwrap();
        assert_eq!(disk.pending(), 0);
        let found = disk.crash(|_, _| false).entry_kind("/a/b/c".as_ref()).unwrap();
        assert_eq!(found, Some(EntryKind::Directory));
    }

    // A directory whose name could not be synced was left there, and the next attempt relied on a sync that says nothing
    // about names which an earlier one had dropped.
    #[test]
    fn a_directory_whose_sync_failed_is_made_anew_by_the_next_attempt() {
        let disk = SimDisk::new(1);
        // The parent's own name, the directory, and the sync of its name.
        disk.fail_nth(3, 5, false);
        create_directory_durably(&shared(&disk), "/a".as_ref()).unwrap_err();
        create_directory_durably(&shared(&disk), "/a".as_ref()).unwrap();
        let found = disk.crash(|_, _| false).entry_kind("/a".as_ref()).unwrap();
        assert_eq!(found, Some(EntryKind::Directory));
    }
}
