//! How long does a rebalance of 1,000 partitions over 16 members take, each in a thread of its own, and how long is any of
//! those that keep their partitions held up by it?
//!
//! Members poll when they are woken and every millisecond, deliver a record of one partition after the other, and commit it
//! with their next poll. One more joins and leaves, again and again. A rebalance is over when every partition is with whom
//! it is to be: all of them have been told and have done what that asks of them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tailwater_groups::GroupStore;

use crate::contest::{Better, Bound, Contestant, Metric, Result, Role, Row, Scale, Target};
use crate::groups::{self, Reader};
use crate::measure::Latencies;

const PARTITIONS: u32 = 1_000;
const MEMBERS: usize = 16;
/// What a member more has to be given, so that no two differ by more than one.
const FEWEST_MOVES: usize = PARTITIONS as usize / MEMBERS;
/// How often a member polls that is not woken.
const POLL_EVERY: Duration = Duration::from_millis(1);
/// How long everybody reads on between two rebalances.
const PAUSE: Duration = Duration::from_millis(3);
/// When a rebalance that does not end ends the run.
const TOO_LONG: Duration = Duration::from_secs(20);

/// A rebalance, in memory but for the commits.
pub(super) const ROW: Row = Row {
    name: "rebalance",
    title: "rebalance of 1,000 partitions over 16 members, each in its own thread",
    metrics: &[
        Metric::time("join, p50", "ms"),
        Metric::time("join, p99", "ms"),
        Metric::time("leave, p50", "ms"),
        Metric::time("leave, p99", "ms"),
        Metric::time("partitions moved by a join", "partitions"),
        Metric { name: "deliveries during a rebalance", unit: "deliveries", better: Better::Higher },
        Metric::time("longest delivery and commit during one", "ms"),
    ],
    targets: &[
        Target { metric: 1, bound: Bound::AtMost(10.0) },
        Target { metric: 3, bound: Bound::AtMost(10.0) },
        Target { metric: 4, bound: Bound::AtMost(FEWEST_MOVES as f64) },
    ],
    prepare: |scale| {
        let (scale, times) = (scale.clone(), scale.count(200));
        let note = "`GroupStore::join`, drop; `Member::poll`, `deliver`, `commit`";
        Ok(vec![Contestant::new("tailwater", Role::Tailwater, note, move || round(&scale, times))])
    },
};

/// What the members and the one that comes and goes tell each other.
#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    is_rebalancing: AtomicBool,
    /// How many partitions those that stay own.
    owned: AtomicUsize,
    given_up: AtomicUsize,
    delivered_meanwhile: AtomicU64,
    longest_meanwhile_ns: AtomicU64,
}

/// Ends the threads, also if the run goes wrong.
struct EndOnDrop<'s>(&'s Shared);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

fn round(scale: &Scale, times: u64) -> Result<Vec<f64>> {
    let directory = scale.directory()?;
    let store = groups::store(directory.path(), PARTITIONS)?;
    let readers = (1..MEMBERS).map(|_| Reader::join(&store)).collect::<Result<Vec<_>>>()?;
    let shared = Shared::default();
    std::thread::scope(|scope| {
        let end = EndOnDrop(&shared);
        let staying: Vec<_> = readers
            .into_iter()
            .map(|reader| {
                let shared = &shared;
                scope.spawn(move || stay(reader, shared))
            })
            .collect();
        let figures = come_and_go(&store, &shared, times);
        drop(end);
        for thread in staying {
            thread.join().unwrap_or_else(|_| Err("a member panicked".into()))?;
        }
        figures
    })
}

/// Reads as a member that stays.
fn stay(mut reader: Reader, shared: &Shared) -> Result<()> {
    // Where a member fails, the one that comes and goes need not wait.
    let _end = EndOnDrop(shared);
    let (mut place, mut delivered) = (0, Vec::new());
    while !shared.is_over.load(Ordering::SeqCst) {
        reader.signal.arm();
        let begun = Instant::now();
        reader.commit(&delivered)?;
        let moved = reader.poll()?;
        let next: Vec<_> = reader.nth_owned(place).into_iter().collect();
        delivered = reader.deliver(&next)?;
        place += 1;
        if shared.is_rebalancing.load(Ordering::SeqCst) {
            let took_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            shared.longest_meanwhile_ns.fetch_max(took_ns, Ordering::SeqCst);
            shared.delivered_meanwhile.fetch_add(1, Ordering::SeqCst);
        }
        shared.given_up.fetch_add(moved.given_up, Ordering::SeqCst);
        shared.owned.fetch_add(moved.gained, Ordering::SeqCst);
        shared.owned.fetch_sub(moved.given_up, Ordering::SeqCst);
        reader.signal.wait_until(Instant::now() + POLL_EVERY);
    }
    Ok(())
}

/// Joins and leaves `times` times, and measures both.
fn come_and_go(store: &GroupStore, shared: &Shared, times: u64) -> Result<Vec<f64>> {
    let (mut joins, mut leaves) = (Latencies::new()?, Latencies::new()?);
    wait_for_the_others(shared, PARTITIONS as usize)?;
    shared.given_up.store(0, Ordering::SeqCst);
    for _ in 0..times {
        std::thread::sleep(PAUSE);
        shared.is_rebalancing.store(true, Ordering::SeqCst);
        let visitor = joins.time(|| take_share(store, shared))?;
        shared.is_rebalancing.store(false, Ordering::SeqCst);
        std::thread::sleep(PAUSE);
        shared.is_rebalancing.store(true, Ordering::SeqCst);
        leaves.time(|| {
            drop(visitor);
            wait_for_the_others(shared, PARTITIONS as usize)
        })?;
        shared.is_rebalancing.store(false, Ordering::SeqCst);
        if store.wants_rewrite() {
            store.rewrite()?;
        }
    }
    let load = |counter: &AtomicU64| counter.load(Ordering::SeqCst) as f64;
    Ok(vec![
        joins.quantile_us(0.5) / 1_000.0,
        joins.quantile_us(0.99) / 1_000.0,
        leaves.quantile_us(0.5) / 1_000.0,
        leaves.quantile_us(0.99) / 1_000.0,
        shared.given_up.load(Ordering::SeqCst) as f64 / times as f64,
        load(&shared.delivered_meanwhile) / (2 * times) as f64,
        load(&shared.longest_meanwhile_ns) / 1e6,
    ])
}

/// Joins, and polls until everybody has what is to be its own.
fn take_share(store: &GroupStore, shared: &Shared) -> Result<Reader> {
    let mut visitor = Reader::join(store)?;
    while visitor.owned_count() < FEWEST_MOVES {
        visitor.signal.arm();
        if visitor.poll()?.gained == 0 {
            let wait = visitor.member.wait().unwrap_or(TOO_LONG).min(TOO_LONG);
            if !visitor.signal.wait_until(Instant::now() + wait) {
                return Err("a partition was not given up in time".into());
            }
        }
    }
    wait_for_the_others(shared, PARTITIONS as usize - FEWEST_MOVES)?;
    Ok(visitor)
}

/// Waits until those that stay own so many partitions together.
fn wait_for_the_others(shared: &Shared, wanted: usize) -> Result<()> {
    let give_up = Instant::now() + TOO_LONG;
    while shared.owned.load(Ordering::SeqCst) != wanted {
        if shared.is_over.load(Ordering::SeqCst) || Instant::now() > give_up {
            let owned = shared.owned.load(Ordering::SeqCst);
            return Err(format!("the members own {owned} partitions in place of {wanted}").into());
        }
        std::thread::yield_now();
    }
    Ok(())
}
