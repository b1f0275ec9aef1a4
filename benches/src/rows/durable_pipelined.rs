//! How many records become durable in a second when one thread keeps 256 receipts in flight?

use std::collections::VecDeque;

use tailwater::{Broker, TopicConfig};
use tailwater_log::{Durability, NewRecord, WhenFull};

use super::{VALUE_BYTES, value};
use crate::baseline::synced::Synced;
use crate::contest::{Bound, Contestant, Metric, Result, Role, Row, Scale, Target};
use crate::measure::{per_second, rate};
use crate::subject;

const IN_FLIGHT: usize = 256;

/// One thread that waits for the oldest of its receipts only when there are 256.
pub(super) const ROW: Row = Row {
    name: "durable-pipelined",
    title: "durable, one thread, 256 receipts in flight, 1 KiB",
    metrics: &[Metric::rate("records/s")],
    targets: &[Target { metric: 0, bound: Bound::OfBare(0.8) }],
    prepare: contestants,
};

fn contestants(scale: &Scale) -> Result<Vec<Contestant>> {
    let groups = scale.count(1_000);
    let count = groups * IN_FLIGHT as u64;
    let value = value(VALUE_BYTES);
    let (bare_scale, bare_value) = (scale.clone(), value.clone());
    let bare = move || {
        let directory = bare_scale.directory()?;
        let mut file = Synced::create(&directory.path().join("bare"), 2 * count * VALUE_BYTES as u64)?;
        let group = || {
            (0..IN_FLIGHT).for_each(|_| file.append(&bare_value));
            file.sync()
        };
        Ok(vec![IN_FLIGHT as f64 * rate(groups, group)?])
    };
    let (log_scale, log_value) = (scale.clone(), value.clone());
    let tailwater = move || {
        let directory = log_scale.directory()?;
        let log = subject::create(directory.path(), Durability::Durable)?;
        let append = || Ok(log.append(&[NewRecord::new(&log_value)], None, WhenFull::Wait)?);
        pipelined(count, append, |receipt| Ok(receipt.wait().map(drop)?))
    };
    let (facade_scale, facade_value) = (scale.clone(), value);
    let facade = move || {
        let directory = facade_scale.directory()?;
        let broker = Broker::open(directory.path().join("data"))?;
        broker.create_topic("bench", &TopicConfig::new())?;
        let producer = broker.producer("bench")?;
        pipelined(count, || Ok(producer.send(&facade_value)?), |receipt| Ok(receipt.wait().map(drop)?))
    };
    Ok(vec![
        Contestant::new("bare", Role::Bare, "256 records a `pwrite` and `fdatasync`", bare),
        Contestant::new("tailwater", Role::Tailwater, "`durable` receipts of the log", tailwater),
        Contestant::new("tailwater, facade", Role::Shown, "`Producer::send`; its sync thread", facade),
    ])
}

fn pipelined<R>(
    count: u64,
    mut append: impl FnMut() -> Result<R>,
    wait: impl Fn(R) -> Result<()>,
) -> Result<Vec<f64>> {
    let mut receipts = VecDeque::with_capacity(IN_FLIGHT);
    let start = std::time::Instant::now();
    for _ in 0..count {
        if receipts.len() == IN_FLIGHT {
            receipts.pop_front().map_or(Ok(()), &wait)?;
        }
        receipts.push_back(append()?);
    }
    receipts.into_iter().try_for_each(&wait)?;
    Ok(vec![per_second(count, start.elapsed())])
}
