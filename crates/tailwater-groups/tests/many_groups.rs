//! Ten thousand groups over a few topics: what each takes in memory, and that those who come and go do not feel the others.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::{clock, commit, group, new_store, offset_of, open_log, partition, topic};
use peak_alloc::PeakAlloc;
use tailwater_groups::coordinator::{MemberSpec, Subscription, TopicInfo, TopicPattern, Topics};
use tailwater_groups::{Commit, GroupId, GroupKind, GroupLifetime, GroupStore, Member};
use tailwater_log::storage::SimDisk;
use tailwater_log::{Offset, Signal};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The heap is counted for the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const GROUPS: usize = 10_000;
const TOPICS: u8 = 8;
const PARTITIONS: u32 = 4;
const PARTITIONS_IN_ALL: usize = TOPICS as usize * PARTITIONS as usize;

/// What a group of one member that owns all partitions takes at most, in bytes: beside the partitions it is most of all a
/// node of a map that has room for eleven members.
const GROUP_BYTES: usize = 5 * 1024 + PARTITIONS_IN_ALL * PARTITION_BYTES;
/// What a group keeps of a partition, in bytes.
const PARTITION_BYTES: usize = 96;
/// What a committed position takes in memory at most, in bytes, its share of its group included.
const POSITION_BYTES: usize = 512;
/// How much slower joining may be among 10,000 groups than among 100: a map that is deeper, and caches that miss.
const SLOWER_AMONG_MANY: u32 = 4;

fn set_topics(store: &GroupStore) {
    let info = |number| TopicInfo {
        id: topic(number),
        name: format!("topic-{number}").into(),
        partition_count: PARTITIONS,
    };
    store.set_topics(&Arc::new(Topics::new(1, (1..=TOPICS).map(info))));
}

fn to_all() -> MemberSpec {
    let patterns = vec![TopicPattern::new("topic-*").unwrap()];
    MemberSpec { subscription: Subscription { topics: Vec::new(), patterns }, ..MemberSpec::default() }
}

fn join(store: &GroupStore, id: &GroupId) -> Member {
    store.join(id, to_all(), GroupLifetime::Lasting, &Arc::new(Signal::new())).unwrap()
}

/// A group of that number with one member, which owns everything.
fn group_of(store: &GroupStore, number: usize) -> Member {
    let member = join(store, &group(&format!("group-{number}")));
    assert_eq!(member.poll().unwrap().assigned.len(), PARTITIONS_IN_ALL);
    member
}

#[test]
fn a_group_with_a_member_takes_the_same_memory_among_ten_thousand_as_among_a_thousand() {
    let _alone = alone();
    let (_disk, store) = new_store();
    set_topics(&store);
    let mut members = Vec::with_capacity(GROUPS);
    let before = HEAP.current_usage();
    let mut sizes = Vec::new();
    for count in [GROUPS / 10, GROUPS] {
        members.extend((members.len()..count).map(|number| group_of(&store, number)));
        sizes.push((HEAP.current_usage() - before) / count);
    }
    println!("{sizes:?} bytes for each of {} and {GROUPS} groups", GROUPS / 10);
    assert!(sizes[1] <= GROUP_BYTES, "{} bytes for a group, {GROUP_BYTES} allowed", sizes[1]);
    assert!(sizes[1] * 10 <= sizes[0] * 11, "it grows with the number of groups: {sizes:?}");

    // They deliver, which takes no more, and leave, which gives everything back.
    for member in &members {
        let deliveries = (1..=TOPICS).map(|number| (partition(number, 0), Offset::new(1)));
        assert!(member.deliver(&deliveries.collect::<Vec<_>>()).unwrap().into_iter().all(|may| may));
    }
    let delivering = (HEAP.current_usage() - before) / GROUPS;
    assert!(delivering <= sizes[1] + 64, "{delivering} bytes for a group that has delivered");
    drop(members.drain(..));
    let left = HEAP.current_usage().saturating_sub(before);
    assert!(left < 64 * 1024, "{left} bytes are left of groups that are gone");
}

#[test]
fn what_groups_have_committed_takes_bounded_memory() {
    let _alone = alone();
    let disk = SimDisk::new(1);
    let set: Vec<Commit<'_>> = (1..=TOPICS).map(|number| commit(partition(number, 0), 7)).collect();
    let store = GroupStore::open(open_log(&disk).unwrap(), clock()).unwrap();
    for number in 0..GROUPS {
        let id = group(&format!("group-{number}"));
        let member = store.join_exclusively(&id, GroupKind::Consumer, GroupLifetime::Lasting).unwrap();
        drop(member.commit(&set).unwrap());
    }
    store.log().sync().unwrap();
    drop(store);

    let log = open_log(&disk).unwrap();
    let before = HEAP.current_usage();
    let store = GroupStore::open(log, clock()).unwrap();
    let used = HEAP.current_usage() - before;
    let positions = GROUPS * set.len();
    println!("{used} bytes for {positions} positions of {GROUPS} groups: {} each", used / positions);
    assert!(used / positions <= POSITION_BYTES, "{} bytes for a position", used / positions);
    assert_eq!(store.groups().len(), GROUPS);
    assert_eq!(offset_of(&store, &group("group-9999"), partition(8, 0)), Some(7));
}

/// The least time that it took to do something to 100 groups or members in a number of rounds, per each.
fn least(rounds: &[Duration]) -> Duration {
    rounds.iter().copied().min().unwrap() / 100
}

#[test]
fn joining_and_leaving_cost_the_same_among_ten_thousand_groups_as_among_a_hundred() {
    let _alone = alone();
    let (_disk, few) = new_store();
    let (_other_disk, many) = new_store();
    let stores = [(&few, 100), (&many, GROUPS)];
    let residents = stores.map(|(store, count)| {
        set_topics(store);
        (0..count).map(|number| group_of(store, number)).collect::<Vec<_>>()
    });
    // New groups, which end with their member; and second members of groups that are there.
    let (mut founding, mut joining) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
    for round in 0..20 {
        for (index, (store, count)) in stores.into_iter().enumerate() {
            let since = Instant::now();
            for number in 0..100 {
                drop(join(store, &group(&format!("visitor-{number}"))));
            }
            founding[index].push(since.elapsed());
            let step = count / 100;
            let since = Instant::now();
            for number in 0..100 {
                drop(join(store, residents[index][number * step + round % step].group()));
            }
            joining[index].push(since.elapsed());
        }
    }
    for (what, rounds) in [("a group of its own", founding), ("a group that is there", joining)] {
        let [among_few, among_many] = rounds.map(|rounds| least(&rounds));
        println!("joining and leaving {what}: {among_few:?} among 100 groups, {among_many:?} among {GROUPS}");
        assert!(among_many <= among_few * SLOWER_AMONG_MANY, "{what}: {among_few:?}, {among_many:?}");
    }
    assert_eq!([few.groups().len(), many.groups().len()], [100, GROUPS], "the visitors are gone");
}
