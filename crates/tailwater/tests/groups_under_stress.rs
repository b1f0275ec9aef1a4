//! Eight members come and go, panic and stall at random over 64 partitions, while others publish: every record is handed
//! out, each partition in order, to one member at a time, and no more is handed out twice than was left uncommitted.
//!
//! `GROUP_OPERATIONS=1000000 GROUP_SEED=7 cargo test --test groups_under_stress -- --nocapture` runs longer.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tailwater::{
    Broker, Consumer, Error, Message, PartitionId, Rebalance, RebalanceListener, Records, TopicConfig,
    TopicPartition,
};

const MEMBERS: u64 = 8;
const PARTITIONS: u32 = 64;
const REVOKE_TIMEOUT: Duration = Duration::from_millis(300);

/// Random numbers by xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

/// What is known of a partition by those who read it.
#[derive(Clone, Default)]
struct Known {
    /// Who works on records of it, and since when.
    holder: Option<(u64, Instant)>,
    /// Up to where records were handed out to anybody.
    handed_out: u64,
    /// The highest offset that somebody tried to commit, and that was committed.
    attempted: u64,
    accepted: u64,
}

#[derive(Default)]
struct Ledger {
    partitions: Mutex<Vec<Known>>,
    operations: AtomicU64,
    doubled: AtomicU64,
    abandoned: AtomicU64,
    rebalances: AtomicU64,
    fenced: AtomicU64,
    is_calm: AtomicBool,
}

/// What one member has been handed out and has not committed, by partition: from where and up to where.
type Outstanding = Arc<Mutex<HashMap<u32, (u64, u64)>>>;

struct Listener {
    ledger: Arc<Ledger>,
    outstanding: Outstanding,
    me: u64,
}

impl Listener {
    fn give_up(&self, partitions: &[TopicPartition]) {
        self.ledger.rebalances.fetch_add(1, Ordering::Relaxed);
        for partition in partitions {
            self.ledger.abandon(self.me, &self.outstanding, partition.partition.get());
        }
    }
}

impl RebalanceListener for Listener {
    fn on_revoked(
        &mut self,
        member: &mut Rebalance<'_>,
        partitions: &[TopicPartition],
    ) -> tailwater::Result<()> {
        // Every second time all is committed before it goes.
        if self.ledger.rebalances.load(Ordering::Relaxed).is_multiple_of(2) {
            let taken = self.ledger.attempt(self.me, &self.outstanding);
            let committed = member.commit().wait();
            self.ledger.settle(&self.outstanding, taken, committed.is_ok());
        }
        self.give_up(partitions);
        Ok(())
    }

    fn on_lost(&mut self, partitions: &[TopicPartition]) {
        self.ledger.fenced.fetch_add(partitions.len() as u64, Ordering::Relaxed);
        self.give_up(partitions);
    }
}

impl Ledger {
    /// Checks what a poll has returned.
    fn receive(&self, me: u64, outstanding: &Outstanding, records: &Records) {
        assert!(records.events().is_empty(), "{:?}", records.events());
        let mut ranges: HashMap<u32, (u64, u64)> = HashMap::new();
        for record in records.iter() {
            let (partition, offset) = (record.partition().get(), record.offset().get());
            assert_eq!(record.value(), Some(&offset.to_le_bytes()[..]), "the wrong bytes");
            let range = ranges.entry(partition).or_insert((offset, offset));
            assert_eq!(range.1, offset, "partition {partition}: out of order, or a gap");
            range.1 = offset + 1;
        }
        let mut partitions = self.partitions.lock().unwrap();
        let mut mine = outstanding.lock().unwrap();
        for (number, (start, end)) in ranges {
            let known = &mut partitions[number as usize];
            if let Some((holder, since)) = known.holder.filter(|(holder, _)| *holder != me) {
                let held = since.elapsed();
                assert!(
                    held >= REVOKE_TIMEOUT,
                    "partition {number}: {me} got it from {holder} after {held:?}"
                );
            }
            known.holder = Some((me, Instant::now()));
            match mine.get_mut(&number) {
                Some(before) => {
                    assert_eq!(before.1, start, "partition {number}: a member goes on where it was");
                    before.1 = end;
                }
                None => {
                    assert!(start <= known.attempted, "partition {number}: begins at {start}, skipping some");
                    assert!(start >= known.accepted, "partition {number}: begins at {start}, goes back");
                    mine.insert(number, (start, end));
                }
            }
            self.doubled.fetch_add(known.handed_out.min(end).saturating_sub(start), Ordering::Relaxed);
            known.handed_out = known.handed_out.max(end);
        }
    }

    /// Notes that all that is outstanding is about to be committed, and returns it.
    fn attempt(&self, me: u64, outstanding: &Outstanding) -> HashMap<u32, (u64, u64)> {
        let mut partitions = self.partitions.lock().unwrap();
        let taken = outstanding.lock().unwrap().clone();
        for (number, (_, end)) in &taken {
            let known = &mut partitions[*number as usize];
            known.attempted = known.attempted.max(*end);
            // Once it is committed another may have it, before this thread comes to say so.
            if known.holder.is_some_and(|(holder, _)| holder == me) {
                known.holder = None;
            }
        }
        taken
    }

    fn settle(&self, outstanding: &Outstanding, taken: HashMap<u32, (u64, u64)>, is_committed: bool) {
        if !is_committed {
            return;
        }
        let mut partitions = self.partitions.lock().unwrap();
        let mut mine = outstanding.lock().unwrap();
        for (number, (_, end)) in taken {
            let known = &mut partitions[number as usize];
            known.accepted = known.accepted.max(end);
            if let Some(range) = mine.get_mut(&number) {
                // From here on it goes on where it was, or another begins there.
                range.0 = end;
            }
        }
    }

    fn abandon(&self, me: u64, outstanding: &Outstanding, number: u32) {
        let mut partitions = self.partitions.lock().unwrap();
        if let Some((start, end)) = outstanding.lock().unwrap().remove(&number) {
            self.abandoned.fetch_add(end - start, Ordering::Relaxed);
        }
        let known = &mut partitions[number as usize];
        if known.holder.is_some_and(|(holder, _)| holder == me) {
            known.holder = None;
        }
    }

    fn abandon_all(&self, me: u64, outstanding: &Outstanding) {
        let all: Vec<_> = outstanding.lock().unwrap().keys().copied().collect();
        all.into_iter().for_each(|number| self.abandon(me, outstanding, number));
    }

    fn count(&self) {
        self.operations.fetch_add(1, Ordering::Relaxed);
    }

    fn is_done(&self) -> bool {
        let partitions = self.partitions.lock().unwrap();
        self.is_calm.load(Ordering::SeqCst)
            && partitions.iter().all(|known| known.accepted == known.handed_out)
    }
}

fn join(broker: &Broker, ledger: &Arc<Ledger>, outstanding: &Outstanding, me: u64) -> Consumer {
    let listener = Listener { ledger: Arc::clone(ledger), outstanding: Arc::clone(outstanding), me };
    let options =
        broker.consumer("workers").max_records(200).revoke_timeout(REVOKE_TIMEOUT).listener(listener);
    options.subscribe(&["jobs"]).unwrap()
}

fn commit(consumer: &Consumer, ledger: &Ledger, outstanding: &Outstanding, me: u64) {
    ledger.count();
    let taken = ledger.attempt(me, outstanding);
    match consumer.commit().wait() {
        Ok(()) => ledger.settle(outstanding, taken, true),
        // The next poll tells what is lost; the rest is committed by a later one.
        Err(Error::FencedMemberEpoch { partition: Some(_), .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

/// One member after another, until everything is done.
fn work(broker: &Broker, ledger: &Arc<Ledger>, thread: u64, seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (thread + 1) << 20 | 1);
    let mut lives = 0;
    while !ledger.is_done() {
        lives += 1;
        let me = thread << 32 | lives;
        let outstanding = Outstanding::default();
        let lived = catch_unwind(AssertUnwindSafe(|| {
            let mut consumer = join(broker, ledger, &outstanding, me);
            while !ledger.is_done() {
                ledger.count();
                let wait = Duration::from_millis(random.below(4));
                ledger.receive(me, &outstanding, &consumer.poll(wait).unwrap());
                let is_calm = ledger.is_calm.load(Ordering::SeqCst);
                let chance = if is_calm { 0 } else { random.below(4_000) };
                match chance {
                    1..=8 => {
                        ledger.abandon_all(me, &outstanding);
                        // As a bug in a handler would: the member leaves while the thread unwinds.
                        resume_unwind(Box::new("a planted panic"));
                    }
                    9..=20 => {
                        ledger.abandon_all(me, &outstanding);
                        return drop(consumer);
                    }
                    21..=32 => return consumer.close().unwrap(),
                    33..=36 => std::thread::sleep(REVOKE_TIMEOUT * 5 / 4),
                    _ => {}
                }
                if is_calm || random.below(3) > 0 {
                    commit(&consumer, ledger, &outstanding, me);
                }
            }
        }));
        if let Err(panic) = lived
            && panic.downcast_ref::<&str>() != Some(&"a planted panic")
        {
            resume_unwind(panic);
        }
        // What a close has left.
        ledger.abandon_all(me, &outstanding);
    }
}

#[test]
fn members_come_and_go_and_every_record_is_handed_out_in_order() {
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
    };
    let (operations, seed) = (number("GROUP_OPERATIONS", 100_000), number("GROUP_SEED", 1));
    let broker = Broker::in_memory().unwrap();
    broker.create_topic("jobs", &TopicConfig::new().partitions(PARTITIONS)).unwrap();
    let ledger = Arc::new(Ledger::default());
    *ledger.partitions.lock().unwrap() = vec![Known::default(); PARTITIONS as usize];
    let start = Instant::now();
    let published = std::thread::scope(|scope| {
        let members: Vec<_> = (0..MEMBERS)
            .map(|thread| {
                let (broker, ledger) = (&broker, &ledger);
                scope.spawn(move || work(broker, ledger, thread, seed))
            })
            .collect();
        let producer = broker.producer("jobs").unwrap();
        let mut random = Random(seed | 1 << 40);
        let mut ends = vec![0_u64; PARTITIONS as usize];
        while ledger.operations.load(Ordering::Relaxed) < operations
            && members.iter().all(|it| !it.is_finished())
        {
            for _ in 0..64 {
                let partition = random.below(u64::from(PARTITIONS)) as u32;
                let value = ends[partition as usize].to_le_bytes();
                ends[partition as usize] += 1;
                let message = Message::new(&value).partition(PartitionId::new(partition));
                drop(producer.send(message).unwrap());
                ledger.count();
            }
            producer.flush().wait().unwrap();
        }
        // The others see the end of each partition before they may be done.
        let total: u64 = ends.iter().sum();
        while ledger.partitions.lock().unwrap().iter().map(|known| known.handed_out).sum::<u64>() < total {
            assert!(members.iter().all(|it| !it.is_finished()), "a member has failed");
            std::thread::sleep(Duration::from_millis(5));
        }
        ledger.is_calm.store(true, Ordering::SeqCst);
        for member in members {
            if let Err(panic) = member.join() {
                resume_unwind(panic);
            }
        }
        ends
    });
    let group = broker.describe_group("workers").unwrap();
    assert!(group.members.is_empty());
    for position in &group.positions {
        let end = published[position.partition.partition.get() as usize];
        assert_eq!(position.committed.offset.get(), end, "{}", position.partition);
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (doubled, abandoned) = (count(&ledger.doubled), count(&ledger.abandoned));
    println!(
        "{} operations in {:.1} s, seed {seed}: {} records, {doubled} handed out twice of {abandoned} that were left \
         uncommitted, {} rebalances told, {} partitions fenced",
        count(&ledger.operations),
        start.elapsed().as_secs_f64(),
        published.iter().sum::<u64>(),
        count(&ledger.rebalances),
        count(&ledger.fenced),
    );
    assert!(doubled <= abandoned, "{doubled} were handed out twice, and {abandoned} were left uncommitted");
    assert!(count(&ledger.rebalances) > 20 && doubled > 0, "hardly anything happened");
}
