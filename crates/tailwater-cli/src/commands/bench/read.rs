//! Reads from the page cache.

use tailwater_log::{Durability, Log, NewRecord};

use super::bare::{Appender, Reader, record_bytes};
use super::measure::{MeasureError, Result, Sides, repeat, scattered};
use super::place::Inner;
use super::subject::Place;
use super::{Plan, subject};

/// All records in order.
pub(super) fn scan(plan: &Plan) -> Result<Sides<'_>> {
    let (limit, count) = (plan.read_limit(), plan.read_records);
    let mut file = FilledFile::create(plan)?;
    let bare = move || {
        let (reader, end) = file.parts();
        repeat(&limit, count, 1, || {
            reader.rewind();
            let mut size_bytes = 0;
            let read = reader.for_each(end, |value| size_bytes += value.len())?;
            check_all(plan, read, size_bytes)
        })
    };
    let filled = FilledLog::create(plan)?;
    let tailwater = move || {
        let log = filled.log();
        repeat(&limit, count, 1, || {
            let (mut place, mut read, mut size_bytes) = (Place::START, 0, 0);
            loop {
                match place.fetch(log, |value| size_bytes += value.len())? {
                    0 => return check_all(plan, read, size_bytes),
                    fetched => read += fetched,
                }
            }
        })
    };
    Ok(Sides { bare: Box::new(bare), tailwater: Box::new(tailwater) })
}

/// Single records anywhere.
pub(super) fn random(plan: &Plan) -> Result<Sides<'_>> {
    let (limit, clock_every) = (plan.read_limit(), plan.clock_every());
    let mut file = FilledFile::create(plan)?;
    let bare = move || {
        let mut next = scattered(plan.read_records);
        let ((reader, _), record_bytes) = (file.parts(), record_bytes(plan.record_bytes));
        repeat(&limit, 1, clock_every, || check_one(plan, reader.read(next(), record_bytes)?))
    };
    let filled = FilledLog::create(plan)?;
    let tailwater = move || {
        let mut next = scattered(plan.read_records);
        let log = filled.log();
        repeat(&limit, 1, clock_every, || check_one(plan, subject::read(log, next())?))
    };
    Ok(Sides { bare: Box::new(bare), tailwater: Box::new(tailwater) })
}

/// What the bare loop reads.
struct FilledFile {
    reader: Reader,
    end: u64,
    _directory: Inner,
}

impl FilledFile {
    fn create(plan: &Plan) -> Result<Self> {
        let directory = plan.scratch.directory()?;
        let value = plan.value();
        let mut file = Appender::create(&directory.file())?;
        for _ in 0..plan.read_records {
            file.stage_or_write(&value)?;
        }
        // What is written back while it is read would be in the way.
        file.sync()?;
        Ok(Self { reader: file.reader()?, end: file.written_bytes(), _directory: directory })
    }

    /// The reader, and where the file ends. By a method: a closure that names a field holds that field alone, and the
    /// directory would be gone.
    fn parts(&mut self) -> (&mut Reader, u64) {
        (&mut self.reader, self.end)
    }
}

/// What Tailwater reads.
struct FilledLog {
    log: Log,
    _directory: Inner,
}

impl FilledLog {
    fn create(plan: &Plan) -> Result<Self> {
        let directory = plan.scratch.directory()?;
        let log = subject::create(directory.path(), Durability::Buffered)?;
        let value = plan.value();
        // One at a time, as most do: small records share batches.
        for _ in 0..plan.read_records {
            subject::append(&log, &[NewRecord::new(&value)])?;
        }
        log.sync()?;
        Ok(Self { log, _directory: directory })
    }

    /// By a method, for the same reason.
    fn log(&self) -> &Log {
        &self.log
    }
}

fn check_all(plan: &Plan, read: u64, size_bytes: usize) -> Result<()> {
    if read == plan.read_records && size_bytes as u64 == read * plan.record_bytes as u64 {
        return Ok(());
    }
    let text = format!("{read} records of {} were read, {size_bytes} bytes", plan.read_records);
    Err(MeasureError::Other(text))
}

fn check_one(plan: &Plan, size_bytes: usize) -> Result<()> {
    if size_bytes == plan.record_bytes {
        return Ok(());
    }
    Err(MeasureError::Other(format!(
        "a record of {size_bytes} bytes was read instead of {}",
        plan.record_bytes
    )))
}
