//! What else could make a record durable, and how long does it take?

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::{VALUE_BYTES, value};
use crate::baseline::{create, encode};
use crate::contest::{Contestant, Result, Role, Row, Scale};
use crate::measure::{LATENCY_METRICS, Latencies};

/// Ways to make one record durable.
pub(super) const ROW: Row = Row {
    name: "tried-sync",
    title: "one record durable, one thread, 1 KiB: other ways",
    metrics: LATENCY_METRICS,
    targets: &[],
    prepare: contestants,
};

/// How the file was made ready.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ready {
    /// Not at all: it grows.
    Empty,
    /// Its space is reserved, by `fallocate`.
    Reserved,
    /// All of it was written before, and synced: with zeros, or as what a removed segment held.
    Written,
}

/// How a record becomes durable.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sync {
    Fdatasync,
    Fsync,
    /// The file is opened with `O_DSYNC`, so that a write does it.
    Dsync,
}

fn contestants(scale: &Scale) -> Result<Vec<Contestant>> {
    let count = scale.count(4_000);
    let one = |name: &str, role: Role, ready: Ready, sync: Sync| {
        let scale = scale.clone();
        let round = move || {
            let directory = scale.directory()?;
            measure(&directory.path().join("file"), count, ready, sync)
        };
        Contestant::new(name, role, "", round)
    };
    Ok(vec![
        one("reserved, `fdatasync` (as it is)", Role::Bare, Ready::Reserved, Sync::Fdatasync),
        one("reserved, `fsync`", Role::Shown, Ready::Reserved, Sync::Fsync),
        one("growing, `fdatasync`", Role::Shown, Ready::Empty, Sync::Fdatasync),
        one("written before, `fdatasync`", Role::Shown, Ready::Written, Sync::Fdatasync),
        one("reserved, `O_DSYNC`", Role::Shown, Ready::Reserved, Sync::Dsync),
        one("written before, `O_DSYNC`", Role::Shown, Ready::Written, Sync::Dsync),
    ])
}

fn measure(path: &Path, count: u64, ready: Ready, sync: Sync) -> Result<Vec<f64>> {
    let reserved_bytes = 2 * count * VALUE_BYTES as u64;
    let file = create(path, if ready == Ready::Reserved { reserved_bytes } else { 0 })?;
    if ready == Ready::Written {
        write_whole(&file, reserved_bytes)?;
    }
    drop(file);
    let mut options = OpenOptions::new();
    options.write(true);
    if sync == Sync::Dsync {
        options.custom_flags(rustix::fs::OFlags::DSYNC.bits().cast_signed());
    }
    let file = options.open(path)?;
    let (value, mut buffer, mut position) = (value(VALUE_BYTES), Vec::new(), 0);
    let mut latencies = Latencies::new()?;
    for _ in 0..count {
        latencies.time(|| {
            buffer.clear();
            encode(&value, &mut buffer);
            file.write_all_at(&buffer, position)?;
            position += buffer.len() as u64;
            match sync {
                Sync::Fdatasync => file.sync_data(),
                Sync::Fsync => file.sync_all(),
                Sync::Dsync => Ok(()),
            }
        })?;
    }
    Ok(latencies.figures())
}

fn write_whole(file: &File, size_bytes: u64) -> Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut position = 0;
    while position < size_bytes {
        let count = zeros.len().min(usize::try_from(size_bytes - position)?);
        file.write_all_at(&zeros[..count], position)?;
        position += count as u64;
    }
    Ok(file.sync_all()?)
}
