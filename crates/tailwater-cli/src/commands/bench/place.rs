//! Where it is measured: the directory that is chosen, whether it will do, and the one of our own inside it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::BinaryBytes;
use tailwater::storage::{Disk, Storage};

use crate::exit::{Failure, Result, warn};

/// File systems that are no disk, as `statfs` numbers them.
const IN_MEMORY: [(u64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];

/// The directory to measure in if none is given: the one that holds `data`, so that topics are not touched.
pub(super) fn beside(data: &Path) -> Result<PathBuf> {
    let parent = match data.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => data,
    };
    let device = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.dev());
    match (device(data), device(parent)) {
        (Some(own), Some(other)) if own != other => Err(Failure::usage(format!(
            "{} is a file system of its own, and {} is on another: name a DIRECTORY to measure, such as a new one in {0}",
            data.display(),
            parent.display()
        ))),
        _ => Ok(parent.to_owned()),
    }
}

/// Says why `directory` will not do, as far as that can be known before.
pub(super) fn check(directory: &Path, needed_bytes: u64) -> Result<()> {
    let shown = directory.display();
    match fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            return Err(Failure::failed(format!("{shown} is no directory: give one on the disk to measure")));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::failed(format!(
                "there is no directory {shown}: create it, or give another one"
            )));
        }
        Err(error) => return Err(Failure::failed(format!("cannot look at {shown}: {error}"))),
    }
    if directory.join("catalog").exists() {
        return Err(Failure::usage(format!(
            "{shown} holds topics, which are left alone: give another directory on that disk, such as the one that holds it"
        )));
    }
    let available_bytes = available_bytes(directory)?;
    if available_bytes < needed_bytes {
        return Err(Failure::failed(format!(
            "a run takes up to {} of disk, and {} are free in {shown}: make room, or measure less with --records 1000",
            BinaryBytes(needed_bytes),
            BinaryBytes(available_bytes)
        )));
    }
    let found =
        rustix::fs::statfs(directory).map(|stat| u64::from_le_bytes(stat.f_type.to_le_bytes()) & 0xffff_ffff);
    if let Some((_, name)) = IN_MEMORY.iter().find(|(number, _)| found == Ok(*number)) {
        warn(format_args!(
            "{shown} is in memory ({name}): syncs cost nothing there, and nothing survives power loss"
        ));
    }
    Ok(())
}

fn available_bytes(directory: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(directory).map_err(|error| {
        Failure::failed(format!("cannot ask how much room is left in {}: {error}", directory.display()))
    })?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// A directory of our own, removed with all that is in it when this is dropped.
pub(super) struct Scratch {
    path: PathBuf,
    next: AtomicU64,
}

impl Scratch {
    /// A path in `parent` that nothing else has.
    pub(super) fn choose(parent: &Path) -> PathBuf {
        let name = format!("tailwater-bench-{}-{:08x}", std::process::id(), Disk.random() & 0xffff_ffff);
        parent.join(name)
    }

    pub(super) fn create(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path)
            .map_err(|error| Failure::failed(format!("cannot create {}: {error}", path.display())))?;
        Ok(Self { path, next: AtomicU64::new(0) })
    }

    /// A directory in it. What is written there and not yet on disk goes with it: no other side has to wait for that, nor,
    /// with this sync, for the removal of the one before.
    pub(super) fn directory(&self) -> io::Result<Inner> {
        let path = self.path.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&path)?;
        let inner = Inner(path);
        fs::File::open(&self.path)?.sync_all()?;
        Ok(inner)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn(format_args!("cannot remove {}: {error}: remove it by hand", self.path.display()));
            }
            _ => {}
        }
    }
}

/// A directory of one side, removed when this is dropped.
pub(super) struct Inner(PathBuf);

impl Inner {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Where the bare loop has its file.
    pub(super) fn file(&self) -> PathBuf {
        self.0.join("bare")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // What is left is removed with the directory around it, or told then.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_the_data_is_not_measured_but_the_one_around_it() {
        assert_eq!(beside(Path::new("tailwater-data")).unwrap(), Path::new("."));
        assert_eq!(beside(Path::new("./tailwater-data")).unwrap(), Path::new("."));
        assert_eq!(beside(Path::new("/srv/shop/data")).unwrap(), Path::new("/srv/shop"));
        assert_eq!(beside(Path::new("/")).unwrap(), Path::new("/"));
    }

    #[test]
    fn a_data_directory_that_is_a_disk_of_its_own_asks_for_a_directory() {
        // `/proc` is one everywhere.
        let Err(Failure::Message { code: 2, text, .. }) = beside(Path::new("/proc")) else {
            panic!("measured beside /proc")
        };
        assert!(text.contains("name a DIRECTORY"), "{text}");
    }

    #[test]
    fn more_than_there_is_room_for_is_told_with_both_sizes() {
        let directory = tempfile::tempdir().unwrap();
        let Err(Failure::Message { code: 1, text, .. }) = check(directory.path(), 1 << 60) else {
            panic!("an exbibyte is free")
        };
        assert!(text.contains("1.00 EiB of disk") && text.contains("--records"), "{text}");
    }

    #[test]
    fn what_is_left_in_it_goes_with_it() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::create(Scratch::choose(parent.path())).unwrap();
        let inner = scratch.directory().unwrap();
        fs::write(inner.file(), "x").unwrap();
        std::mem::forget(inner);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
        drop(scratch);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
