//! Appends that wait for no sync.

use tailwater_log::{Durability, NewRecord};

use super::bare::Appender;
use super::measure::{Sides, repeat};
use super::{Plan, subject};

/// Records of a batch, if they are not too large.
const BATCH_RECORDS: usize = 100;

/// One at a time, into memory.
pub(super) fn buffered(plan: &Plan) -> Sides<'_> {
    single(plan, Durability::Buffered, |_| Ok(()))
}

/// One at a time, into the page cache.
pub(super) fn written(plan: &Plan) -> Sides<'_> {
    single(plan, Durability::Written, Appender::write)
}

fn single(
    plan: &Plan,
    durability: Durability,
    finish: impl Fn(&mut Appender) -> std::io::Result<()> + 'static,
) -> Sides<'_> {
    let value = plan.value();
    let bare_value = value.clone();
    let bare = move || {
        let directory = plan.scratch.directory()?;
        let mut file = Appender::create(&directory.file())?;
        repeat(&plan.limit, 1, plan.clock_every(), || {
            file.stage_or_write(&bare_value)?;
            Ok(finish(&mut file)?)
        })
    };
    let tailwater = move || {
        let directory = plan.scratch.directory()?;
        let log = subject::create(directory.path(), durability)?;
        let record = [NewRecord::new(&value)];
        repeat(&plan.limit, 1, plan.clock_every(), || subject::append(&log, &record))
    };
    Sides { bare: Box::new(bare), tailwater: Box::new(tailwater) }
}

/// Several at a time, into memory.
pub(super) fn batches(plan: &Plan) -> Sides<'_> {
    let value = plan.value();
    let tailwater = move || {
        let directory = plan.scratch.directory()?;
        let log = subject::create(directory.path(), Durability::Buffered)?;
        let batch = vec![NewRecord::new(&value); plan.batch_records(BATCH_RECORDS)];
        repeat(&plan.limit, batch.len() as u64, 1, || subject::append(&log, &batch))
    };
    Sides { tailwater: Box::new(tailwater), ..buffered(plan) }
}
