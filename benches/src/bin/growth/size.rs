//! One partition that grows: appends, reads from the page cache, reads from the disk beside a bare cold `pread`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{Advice, fadvise};
use tailwater_benches::contest::{Result, Scale};
use tailwater_benches::measure::{per_second, scattered};
use tailwater_benches::rows::{VALUE_BYTES, value};
use tailwater_benches::series::{Column, Series};
use tailwater_benches::subject;
use tailwater_log::{Durability, Log};

const COLUMNS: &[Column] = &[
    Column { name: "append, `buffered`", unit: "records/s" },
    Column { name: "random read, page cache", unit: "us" },
    Column { name: "random read, cold", unit: "us, cold" },
    Column { name: "bare `pread`, cold", unit: "us, cold" },
];

pub(super) fn measure(scale: &Scale, max_bytes: u64) -> Result<Series> {
    let mut series =
        Series::new("size", "One partition as it grows, 1 KiB records", "size of the records, MiB", COLUMNS);
    let max_bytes = if scale.is_quick { 2 << 20 } else { max_bytes };
    let directory = scale.directory()?;
    subject::create(directory.path(), Durability::Buffered)?.close()?;
    let mut size_bytes: u64 = 1 << 20;
    while size_bytes <= max_bytes {
        let append = grow(directory.path(), size_bytes)?;
        let figures = vec![
            append,
            warm(directory.path(), scale.count(200_000))?,
            cold(directory.path(), scale.count(4_000))?,
            cold_pread(directory.path(), scale.count(4_000))?,
        ];
        series.add((size_bytes >> 20) as f64, figures);
        size_bytes *= 2;
    }
    Ok(series)
}

/// Appends until the records take `size_bytes`. Returns the rate.
fn grow(directory: &Path, size_bytes: u64) -> Result<f64> {
    let log = subject::open(directory, Durability::Buffered)?;
    let value = value(VALUE_BYTES);
    let count = (size_bytes / VALUE_BYTES as u64).saturating_sub(log.log_end_offset().get());
    let start = Instant::now();
    for number in 0..count {
        subject::append(&log, &value)?;
        // As a broker does: what is written is synced every 16 MiB.
        if number % 1_024 == 1_023 {
            log.maintain()?;
        }
    }
    let rate = per_second(count, start.elapsed());
    log.close()?;
    Ok(rate)
}

fn warm(directory: &Path, count: u64) -> Result<f64> {
    let log = subject::open(directory, Durability::Buffered)?;
    // The first round reads into the page cache and fills what is cached in memory.
    subject::scan(&log)?;
    let mean_us = random_reads(&log, count)?;
    log.close()?;
    Ok(mean_us)
}

fn cold(directory: &Path, count: u64) -> Result<f64> {
    forget(directory)?;
    let log = subject::open(directory, Durability::Buffered)?;
    let mean_us = random_reads(&log, count)?;
    log.close()?;
    Ok(mean_us)
}

fn random_reads(log: &Log, count: u64) -> Result<f64> {
    let mut next = scattered(log.log_end_offset().get());
    let start = Instant::now();
    for _ in 0..count {
        subject::read(log, next())?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / count as f64)
}

/// Reads as many bytes as a record takes at random positions of the same files, with one `pread` each.
fn cold_pread(directory: &Path, count: u64) -> Result<f64> {
    forget(directory)?;
    let files = segments(directory)?;
    let lengths: Vec<u64> = files.iter().map(|file| Ok(file.metadata()?.len())).collect::<Result<_>>()?;
    let (mut which, mut next) = (scattered(files.len() as u64), scattered(u64::MAX));
    let mut buffer = [0; VALUE_BYTES];
    let start = Instant::now();
    for _ in 0..count {
        let index = usize::try_from(which())?;
        let room = lengths[index].saturating_sub(VALUE_BYTES as u64).max(1);
        files[index].read_at(&mut buffer, next() % room)?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / count as f64)
}

/// Has the kernel forget what it has cached of the log, which nobody has open.
fn forget(directory: &Path) -> Result<()> {
    for file in segments(directory)? {
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

fn segments(directory: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory.join("log"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            files.push(File::open(path)?);
        }
    }
    Ok(files)
}
