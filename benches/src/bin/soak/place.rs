//! Where a soak works: a file system of its own where that can be had.

use std::path::{Path, PathBuf};
use std::process::Command;

use tailwater_benches::contest::Result;

/// A directory that may take up so much disk.
#[derive(Debug)]
pub(crate) struct Place {
    /// Removed at the end.
    _directory: Option<tempfile::TempDir>,
    path: PathBuf,
    mount: Option<PathBuf>,
}

impl Place {
    /// Makes a place: in `given`, or in a directory that is removed at the end.
    pub(crate) fn make(given: Option<&Path>, size_bytes: u64) -> Result<Self> {
        let directory = given.is_none().then(tempfile::tempdir).transpose()?;
        let path = match (&directory, given) {
            (Some(made), _) => made.path().to_owned(),
            (None, Some(given)) => given.to_owned(),
            (None, None) => unreachable!("one is made if none is given"),
        };
        std::fs::create_dir_all(&path)?;
        let is_root = rustix::process::geteuid().is_root();
        let mount = (is_root && mount(&path, size_bytes)?).then(|| path.clone());
        Ok(Self { _directory: directory, path, mount })
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(crate) fn describe(&self) -> &'static str {
        match self.mount {
            Some(_) => "an ext4 file system of that size",
            None => "a file system of any size: only the broker's own limit was there",
        }
    }

    /// What the files take up, in bytes. Files with several names are counted once.
    pub(crate) fn used_bytes(&self) -> Result<u64> {
        if self.mount.is_some() {
            let found = rustix::fs::statvfs(&self.path)?;
            return Ok((found.f_blocks - found.f_bfree) * found.f_frsize);
        }
        let mut seen = std::collections::HashSet::new();
        Ok(used(&self.path, &mut seen))
    }
}

/// What is removed while it is counted is not counted.
fn used(directory: &Path, seen: &mut std::collections::HashSet<u64>) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => used(&entry.path(), seen),
            Ok(found) if seen.insert(found.ino()) => found.blocks() * 512,
            _ => 0,
        })
        .sum()
}

/// Mounts an ext4 image of that size over the directory. False if this machine cannot.
fn mount(path: &Path, size_bytes: u64) -> Result<bool> {
    let image = path.with_extension("image");
    std::fs::File::create(&image)?.set_len(size_bytes)?;
    let run = |program: &str, arguments: &[&std::ffi::OsStr]| {
        let output = Command::new(program).args(arguments).output();
        output.is_ok_and(|output| output.status.success())
    };
    let made = run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image.as_os_str()])
        && run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), path.as_os_str()]);
    // The mount keeps it.
    std::fs::remove_file(&image)?;
    Ok(made)
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(mount) = &self.mount {
            let unmounted = Command::new("umount").arg("-l").arg(mount).status();
            if !unmounted.is_ok_and(|status| status.success()) {
                eprintln!("warning: {} stays mounted", mount.display());
            }
        }
    }
}
