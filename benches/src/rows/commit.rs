//! How many commits of one position become durable in a second when the members of a group each wait for theirs, and how
//! many of them share a sync?

use std::sync::atomic::{AtomicU64, Ordering};

use tailwater_groups::{GroupStore, Member};
use tailwater_log::{Durability, PartitionIdentity};

use super::durable_threads::waiting;
use crate::baseline::group_commit::GroupCommit;
use crate::contest::{Better, Bound, Contestant, Metric, Result, Role, Row, Scale, Target};
use crate::{groups, subject};

const METRICS: &[Metric] = &[
    Metric::rate("commits/s"),
    Metric::time("p50", "us"),
    Metric::time("p99", "us"),
    Metric::time("p99.9", "us"),
    Metric::time("max", "us"),
    Metric { name: "syncs of 16 commits", unit: "syncs", better: Better::Lower },
];
const OF_BARE: Target = Target { metric: 0, bound: Bound::OfBare(0.8) };
const ONE_SYNC_OF_SIXTEEN: Target = Target { metric: 5, bound: Bound::AtMost(1.0) };

/// One thread.
pub(super) const ONE: Row = Row {
    name: "commit-1-thread",
    title: "commit of one position, durable, one thread that waits",
    metrics: METRICS,
    targets: &[OF_BARE],
    prepare: |scale| contestants(scale, 1, 8_000),
};

/// 16 threads.
pub(super) const SIXTEEN: Row = Row {
    name: "commit-16-threads",
    title: "commit of one position, durable, 16 threads that each wait",
    metrics: METRICS,
    targets: &[OF_BARE],
    prepare: |scale| contestants(scale, 16, 32_000),
};

/// 64 threads.
pub(super) const SIXTY_FOUR: Row = Row {
    name: "commit-64-threads",
    title: "commit of one position, durable, 64 threads that each wait",
    metrics: METRICS,
    targets: &[OF_BARE, ONE_SYNC_OF_SIXTEEN],
    prepare: |scale| contestants(scale, 64, 64_000),
};

fn contestants(scale: &Scale, threads: u32, commits: u64) -> Result<Vec<Contestant>> {
    let count = scale.count(commits) / u64::from(threads);
    let entry = groups::entry_of_commit();
    let reserved_bytes = 4 * u64::from(threads) * count.max(1) * entry.len() as u64;
    let commits = count * u64::from(threads);
    let (bare_scale, bare_entry) = (scale.clone(), entry.clone());
    let bare = move || {
        let directory = bare_scale.directory()?;
        let file = GroupCommit::create(&directory.path().join("bare"), reserved_bytes)?;
        let figures = waiting(threads.into(), count, &|_| Ok(file.append(&bare_entry)?))?;
        Ok(with_syncs(figures, file.syncs(), commits))
    };
    let log_scale = scale.clone();
    let log = move || {
        let directory = log_scale.directory()?;
        let log = subject::create(directory.path(), Durability::Durable)?;
        let figures = waiting(threads.into(), count, &|_| Ok(subject::append(&log, &entry)?))?;
        Ok(with_syncs(figures, log.stats()?.syncs, commits))
    };
    let store_scale = scale.clone();
    let tailwater = move || {
        let directory = store_scale.directory()?;
        let store = groups::store(directory.path(), threads)?;
        let committers = Committer::join_all(&store, threads)?;
        let syncs = store.log().stats()?.syncs;
        let commit = |thread: usize| committers[thread].commit_and_wait();
        let figures = waiting(threads.into(), count, &commit)?;
        Ok(with_syncs(figures, store.log().stats()?.syncs - syncs, commits))
    };
    Ok(vec![
        Contestant::new("bare", Role::Bare, "a mutex, a leader that syncs for all; key and value only", bare),
        Contestant::new("tailwater, the log", Role::Shown, "the same bytes: `Log::append`", log),
        Contestant::new(
            "tailwater",
            Role::Tailwater,
            "`Member::commit`, each in a partition of its own",
            tailwater,
        ),
    ])
}

fn with_syncs(mut figures: Vec<f64>, syncs: u64, commits: u64) -> Vec<f64> {
    figures.push(16.0 * syncs as f64 / commits as f64);
    figures
}

/// A member of the group, and the partition that it owns.
struct Committer {
    member: Member,
    partition: PartitionIdentity,
    committed: AtomicU64,
}

impl Committer {
    /// As many members of one group as the store's topic has partitions.
    fn join_all(store: &GroupStore, count: u32) -> Result<Vec<Self>> {
        let joined = (0..count).map(|_| Ok(groups::join(store)?.0)).collect::<Result<Vec<_>>>()?;
        let committers = joined.into_iter().map(|member| {
            let assigned = member.poll()?.assigned;
            let [one] = assigned[..] else { return Err("each member has one partition".into()) };
            Ok(Self { member, partition: one.partition, committed: AtomicU64::new(0) })
        });
        let committers = committers.collect::<Result<Vec<_>>>()?;
        // The first commits register the group and find no position before them: they are not what is measured.
        committers.iter().try_for_each(Self::commit_and_wait)?;
        Ok(committers)
    }

    /// Commits the next offset and waits until that is durable.
    fn commit_and_wait(&self) -> Result<()> {
        let offset = self.committed.fetch_add(1, Ordering::Relaxed);
        let receipt = self.member.commit(&[groups::commit(self.partition, offset)])?;
        receipt.ok_or("what a lasting group commits is in its log")?.wait()?;
        Ok(())
    }
}
