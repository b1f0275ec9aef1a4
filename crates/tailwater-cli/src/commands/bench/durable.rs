//! Appends that are synced.

use std::collections::VecDeque;
use std::thread;
use std::time::Instant;

use tailwater_log::{Durability, NewRecord, WhenFull};

use super::bare::{Appender, GroupCommit};
use super::measure::{Latencies, Limit, MeasureError, Result, Round, Sides, repeat, repeat_timed};
use super::{Plan, subject};

/// How many records are on their way at once, if they are not too large.
pub(super) const IN_FLIGHT: usize = 256;

/// One thread that waits for each record.
pub(super) fn one(plan: &Plan) -> Sides<'_> {
    let value = plan.value();
    let bare_value = value.clone();
    let bare = move || {
        let directory = plan.scratch.directory()?;
        let mut file = Appender::create(&directory.file())?;
        repeat_timed(&plan.limit, || {
            file.stage(&bare_value);
            Ok(file.sync()?)
        })
    };
    let tailwater = move || {
        let directory = plan.scratch.directory()?;
        let log = subject::create(directory.path(), Durability::Durable)?;
        let record = [NewRecord::new(&value)];
        repeat_timed(&plan.limit, || subject::append(&log, &record))
    };
    Sides { bare: Box::new(bare), tailwater: Box::new(tailwater) }
}

/// Threads that each wait for theirs.
pub(super) fn threads(plan: &Plan) -> Sides<'_> {
    let value = plan.value();
    let bare_value = value.clone();
    let bare = move || {
        let directory = plan.scratch.directory()?;
        let file = GroupCommit::create(&directory.file())?;
        in_threads(plan, &|| Ok(file.append(&bare_value)?))
    };
    let tailwater = move || {
        let directory = plan.scratch.directory()?;
        let log = subject::create(directory.path(), Durability::Durable)?;
        in_threads(plan, &|| subject::append(&log, &[NewRecord::new(&value)]))
    };
    Sides { bare: Box::new(bare), tailwater: Box::new(tailwater) }
}

/// Has each thread do `act` until its part of the limit is reached.
fn in_threads(plan: &Plan, act: &(dyn Fn() -> Result<()> + Sync)) -> Result<Round> {
    let each = plan.limit.records.div_ceil(plan.threads as u64);
    let limit = Limit { records: each, ..plan.limit };
    let mut latencies = Latencies::new()?;
    let mut records = 0;
    let start = Instant::now();
    let rounds = thread::scope(|scope| -> Result<Vec<Result<Round>>> {
        let start_one = |_| {
            let begun = thread::Builder::new().spawn_scoped(scope, || repeat_timed(&limit, act));
            begun.map_err(|error| MeasureError::Other(format!("cannot start a thread: {error}")))
        };
        let started: Vec<_> = (0..plan.threads).map(start_one).collect::<Result<_>>()?;
        let panicked = || MeasureError::Other("a thread of the benchmark panicked".to_owned());
        Ok(started.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(panicked()))).collect())
    })?;
    let elapsed = start.elapsed();
    for round in rounds {
        let round = round?;
        records += round.records;
        round.latencies.iter().try_for_each(|of_one| latencies.add(of_one))?;
    }
    Ok(Round { records, elapsed, latencies: Some(latencies) })
}

/// One thread that waits for the oldest record only when enough are on their way.
pub(super) fn pipelined(plan: &Plan) -> Sides<'_> {
    let value = plan.value();
    let bare_value = value.clone();
    let in_flight = plan.batch_records(IN_FLIGHT);
    let bare = move || {
        let directory = plan.scratch.directory()?;
        let mut file = Appender::create(&directory.file())?;
        repeat(&plan.limit, in_flight as u64, 1, || {
            (0..in_flight).for_each(|_| file.stage(&bare_value));
            Ok(file.sync()?)
        })
    };
    let tailwater = move || {
        let directory = plan.scratch.directory()?;
        let log = subject::create(directory.path(), Durability::Durable)?;
        let record = [NewRecord::new(&value)];
        let mut receipts = VecDeque::with_capacity(in_flight);
        let start = Instant::now();
        let mut round = repeat(&plan.limit, 1, plan.clock_every(), || {
            if receipts.len() == in_flight
                && let Some(oldest) = receipts.pop_front()
            {
                tailwater_log::Receipt::wait(oldest)?;
            }
            receipts.push_back(log.append(&record, None, WhenFull::Wait)?);
            Ok(())
        })?;
        for receipt in receipts {
            receipt.wait()?;
        }
        round.elapsed = start.elapsed();
        Ok(round)
    };
    Sides { bare: Box::new(bare), tailwater: Box::new(tailwater) }
}
