//! What the tests share: brokers on disks that can fail, and a look at what is in them.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub(crate) mod members;
pub(crate) mod reading;

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tailwater::storage::{SimDisk, Storage};
use tailwater::{Broker, BrokerOptions, Maintenance, PartitionId, Result, TopicId, TopicPartition};
use tailwater_log::{FetchIsolation, FetchLimits, Log, LogOptions, PartitionIdentity};

pub(crate) const DATA: &str = "/data";

/// Opens a broker without threads on a simulated disk, so that every operation happens when the test says so.
pub(crate) fn open(disk: &SimDisk) -> Result<Broker> {
    BrokerOptions::new().maintenance(Maintenance::Manual).open_on(Arc::new(disk.clone()), DATA)
}

/// The same with background threads.
pub(crate) fn open_with_threads(disk: &SimDisk) -> Result<Broker> {
    BrokerOptions::new().open_on(Arc::new(disk.clone()), DATA)
}

pub(crate) fn partition(topic: &str, number: u32) -> TopicPartition {
    TopicPartition::new(topic, PartitionId::new(number))
}

/// The values in a partition, as a reader that takes no lock sees them.
pub(crate) fn values(
    storage: Arc<dyn Storage>,
    id: TopicId,
    data: &Path,
    at: &TopicPartition,
) -> Vec<String> {
    let identity = PartitionIdentity { topic_id: id, partition: at.partition };
    let log = Log::attach_read_only(storage, &data.join(at.to_string()), LogOptions::new(identity)).unwrap();
    let mut values = Vec::new();
    let mut from = log.log_start_offset();
    loop {
        let fetched = log.fetch(from, FetchLimits::default(), FetchIsolation::Visible, None).unwrap();
        if fetched.is_empty() {
            return values;
        }
        values.extend(
            fetched.iter().map(|r| String::from_utf8_lossy(r.value().unwrap_or_default()).into_owned()),
        );
        from = fetched.next_offset();
    }
}

/// The durable values in a partition of a broker on a simulated disk.
pub(crate) fn values_of(broker: &Broker, disk: &SimDisk, topic: &str, number: u32) -> Vec<String> {
    let id = broker.describe_topic(topic).unwrap().id;
    // An attached reader shows what is recorded as durable, which trails a sync: a close records all of it.
    broker.close().unwrap();
    values(Arc::new(disk.clone()), id, DATA.as_ref(), &partition(topic, number))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread; `None` if it is not done within `limit`.
pub(crate) fn block_on<F: Future>(future: F, limit: Duration) -> Option<F::Output> {
    let deadline = Instant::now() + limit;
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        let left = deadline.checked_duration_since(Instant::now())?;
        std::thread::park_timeout(left);
    }
}

/// Waits until `is_so`, for at most ten seconds.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "not in ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A small deterministic source of choices (xorshift).
pub(crate) struct Choices(pub(crate) u64);

impl Choices {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
