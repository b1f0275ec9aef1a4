//! How long does a rebalance of 1,000 partitions over 16 members take, and a poll that has no news?
//!
//! All members are of one thread here, so that the whole of the work is measured and nothing else; `--bin compare` measures
//! it with a thread for each, and what those do meanwhile who keep their partitions.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tailwater_benches::groups::{self, Moved, Reader};
use tailwater_groups::GroupStore;
use tempfile::TempDir;

const PARTITIONS: u32 = 1_000;
const MEMBERS: usize = 16;
/// What a member more has to be given, so that no two differ by more than one: 62 of 1,000.
const FEWEST_MOVES: usize = PARTITIONS as usize / MEMBERS;

/// A store, and so many members that own all partitions of its topic.
fn settled(members: usize) -> (TempDir, GroupStore, Vec<Reader>) {
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let store = groups::store(directory.path(), PARTITIONS).unwrap();
    let mut readers: Vec<_> = (0..members).map(|_| Reader::join(&store).unwrap()).collect();
    poll_all(&mut readers);
    (directory, store, readers)
}

fn poll_all(readers: &mut [Reader]) -> Moved {
    let polls = readers.iter_mut().map(|reader| reader.poll().unwrap());
    polls.fold(Moved::default(), |all, one| Moved {
        gained: all.gained + one.gained,
        given_up: all.given_up + one.given_up,
    })
}

/// What the members have done when the next rebalance begins.
#[derive(Clone, Copy)]
enum Before {
    /// Committed all that they delivered.
    Committed,
    /// Delivered a record of every partition, and committed none of them.
    Delivered,
}

impl Before {
    fn prepare(self, readers: &mut [Reader]) {
        if matches!(self, Before::Delivered) {
            let delivered = readers.iter_mut().map(|reader| reader.deliver_all().unwrap().len());
            assert_eq!(delivered.sum::<usize>(), PARTITIONS as usize);
        }
    }
}

/// The last member joins, and all poll until it has its share: so many times.
fn join(store: &GroupStore, readers: &mut Vec<Reader>, before: Before, times: u64) -> Duration {
    let mut elapsed = Duration::ZERO;
    for _ in 0..times {
        before.prepare(readers);
        let start = Instant::now();
        readers.push(Reader::join(store).unwrap());
        let moved = poll_all(readers);
        elapsed += start.elapsed();
        assert_eq!(moved, Moved { gained: FEWEST_MOVES, given_up: FEWEST_MOVES });
        assert_settled(store, readers);
        readers.pop();
        poll_all(readers);
    }
    elapsed
}

/// The last member leaves, and all poll until they have what it had: so many times.
fn leave(store: &GroupStore, readers: &mut Vec<Reader>, before: Before, times: u64) -> Duration {
    let mut elapsed = Duration::ZERO;
    for _ in 0..times {
        readers.push(Reader::join(store).unwrap());
        poll_all(readers);
        before.prepare(readers);
        let start = Instant::now();
        readers.pop();
        let moved = poll_all(readers);
        elapsed += start.elapsed();
        assert_eq!(moved, Moved { gained: FEWEST_MOVES, given_up: 0 });
        assert_settled(store, readers);
    }
    elapsed
}

fn assert_settled(store: &GroupStore, readers: &[Reader]) {
    let counts: Vec<_> = readers.iter().map(Reader::owned_count).collect();
    assert_eq!(counts.iter().sum::<usize>(), PARTITIONS as usize);
    assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
    // Between two rebalances, not in them: the log of commits stays small, as in a broker.
    if store.wants_rewrite() {
        store.rewrite().unwrap();
    }
}

fn rebalances(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rebalance 1,000 partitions, 16 members");
    group.sample_size(20);
    for (before, name) in [(Before::Committed, "all committed"), (Before::Delivered, "all delivered")] {
        let (_directory, store, mut readers) = settled(MEMBERS - 1);
        group.bench_function(BenchmarkId::new("the 16th joins", name), |bencher| {
            bencher.iter_custom(|times| join(&store, &mut readers, before, times));
        });
        group.bench_function(BenchmarkId::new("the 16th leaves", name), |bencher| {
            bencher.iter_custom(|times| leave(&store, &mut readers, before, times));
        });
    }
}

fn polls_without_news(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("poll without news, 1,000 partitions");
    for count in [1, MEMBERS] {
        let (_directory, _store, readers) = settled(count);
        let member = &readers[0].member;
        group.bench_function(BenchmarkId::new("members", count), |bencher| {
            bencher.iter(|| assert!(member.poll().unwrap().is_empty()));
        });
        group.bench_function(BenchmarkId::new("members, and a delivery of nothing", count), |bencher| {
            bencher.iter(|| {
                assert!(member.poll().unwrap().is_empty());
                assert!(member.deliver(&[]).unwrap().is_empty());
            });
        });
    }
}

criterion_group!(benches, rebalances, polls_without_news);
criterion_main!(benches);
