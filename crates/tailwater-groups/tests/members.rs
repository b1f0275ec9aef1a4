//! Several members of a group in one store: taking over, fencing, waking, first contact, ephemeral groups.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Choices, Gate, clock, commit, group, new_store, offset_of, open, open_log, partition, topic};
use tailwater_groups::coordinator::{MemberSpec, Subscription, TopicInfo, TopicPattern, Topics};
use tailwater_groups::{
    Error, GroupKind, GroupLifetime, GroupStore, ManualMonotonicClock, Member, REWRITE_MIN_RECORDS, Start,
};
use tailwater_log::storage::SimDisk;
use tailwater_log::{Offset, PartitionIdentity, Signal};

/// Topics 1 to `count`, each with so many partitions.
fn topics(version: u64, count: u8, partition_count: u32) -> Arc<Topics> {
    let info =
        |number| TopicInfo { id: topic(number), name: format!("topic-{number}").into(), partition_count };
    Arc::new(Topics::new(version, (1..=count).map(info)))
}

fn to_first() -> MemberSpec {
    let subscription = Subscription { topics: vec![topic(1)], patterns: Vec::new() };
    MemberSpec { subscription, revoke_timeout_ms: 100, ..MemberSpec::default() }
}

fn to_all() -> MemberSpec {
    let patterns = vec![TopicPattern::new("*").unwrap()];
    MemberSpec { subscription: Subscription { topics: Vec::new(), patterns }, ..MemberSpec::default() }
}

fn join(store: &GroupStore, spec: MemberSpec) -> (Member, Arc<Signal>) {
    let signal = Arc::new(Signal::new());
    let member = store.join(&group("billing"), spec, GroupLifetime::Lasting, &signal).unwrap();
    (member, signal)
}

fn has_news(signal: &Signal) -> bool {
    signal.wait_until(Instant::now())
}

fn assigned(member: &Member) -> Vec<PartitionIdentity> {
    member.poll().unwrap().assigned.into_iter().map(|assigned| assigned.partition).collect()
}

fn fenced_partition<T: std::fmt::Debug>(result: Result<T, Error>) -> Option<PartitionIdentity> {
    match result {
        Err(Error::FencedMemberEpoch { partition, .. }) => partition.map(|partition| *partition),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_commit_that_settles_all_hands_the_partition_over_and_later_ones_are_refused() {
    let (_disk, store) = new_store();
    store.set_topics(&topics(1, 1, 2));
    let (first, first_signal) = join(&store, to_first());
    let [kept, moved] = assigned(&first)[..] else { panic!() };
    assert_eq!(first.deliver(&[(kept, Offset::new(5)), (moved, Offset::new(5))]).unwrap(), [true, true]);
    first_signal.arm();
    let (second, second_signal) = join(&store, to_first());
    assert!(has_news(&first_signal));
    second_signal.arm();
    assert_eq!(assigned(&second), []);
    assert!(second.wait().is_some_and(|wait| wait <= Duration::from_millis(100)));
    assert_eq!(first.poll().unwrap().revoking, [moved]);
    drop(first.commit(&[commit(kept, 5), commit(moved, 5)]).unwrap());
    assert!(has_news(&second_signal));
    assert_eq!(first.release(&[moved]), []);
    let taken = second.poll().unwrap().assigned;
    assert_eq!(taken[0].partition, moved);
    assert!(matches!(&second.starts(&taken)[0], Start::At(at) if at.position.offset == Offset::new(5)));
    let refused = first.commit(&[commit(kept, 6), commit(moved, 6)]);
    assert_eq!(fenced_partition(refused), Some(moved));
    assert_eq!(offset_of(&store, first.group(), kept), Some(5), "all or nothing");
    assert_eq!(first.deliver(&[(moved, Offset::new(6)), (kept, Offset::new(6))]).unwrap(), [false, true]);
}

#[test]
fn a_member_that_takes_too_long_loses_the_partition_and_nothing_else() {
    let monotonic = Arc::new(ManualMonotonicClock::default());
    let log = open_log(&SimDisk::new(1)).unwrap();
    let store = GroupStore::open_with_monotonic(log, clock(), monotonic.clone()).unwrap();
    store.set_topics(&topics(1, 1, 2));
    let (stuck, _signal) = join(&store, to_first());
    let [kept, moved] = assigned(&stuck)[..] else { panic!() };
    stuck.deliver(&[(kept, Offset::new(5)), (moved, Offset::new(5))]).unwrap();
    let (other, _signal) = join(&store, to_first());
    assert_eq!(assigned(&other), []);
    monotonic.advance_ms(99);
    assert_eq!((assigned(&other), other.wait()), (vec![], Some(Duration::from_millis(1))));
    monotonic.advance_ms(1);
    assert_eq!((assigned(&other), other.wait()), (vec![moved], None));
    let error = stuck.commit(&[commit(moved, 5)]).unwrap_err();
    assert!(error.to_string().contains("does not own"), "{error}");
    drop(stuck.commit(&[commit(kept, 5)]).unwrap());
    assert_eq!(stuck.poll().unwrap().lost, [moved]);
}

#[test]
fn dropping_a_member_wakes_those_who_gain_also_while_a_panic_unwinds() {
    let (disk, store) = new_store();
    store.set_topics(&topics(1, 1, 4));
    let (first, _signal) = join(&store, to_first());
    let (second, signal) = join(&store, to_first());
    let of_first = assigned(&first);
    assert_eq!((of_first.len(), assigned(&second).len()), (2, 2));
    first.deliver(&[(of_first[0], Offset::new(9))]).unwrap();
    let before = disk.operation_count();
    signal.arm();
    let panicked = std::thread::spawn(move || {
        let _first = first;
        panic!("the handler fails");
    });
    assert!(panicked.join().is_err());
    assert!(has_news(&signal));
    assert_eq!(assigned(&second), of_first);
    drop(second);
    assert_eq!((store.groups(), disk.operation_count()), (vec![], before));
    assert_eq!(store.members(&group("billing")), None);
}

#[test]
fn an_evicted_member_is_told_and_what_it_had_goes_to_the_others() {
    let (_disk, store) = new_store();
    store.set_topics(&topics(1, 1, 2));
    let billing = group("billing");
    let (stuck, _signal) = join(&store, to_first());
    assigned(&stuck);
    assert!(store.evict(&billing, stuck.id()));
    assert_eq!(fenced_partition(stuck.poll()), None);
    assert_eq!(fenced_partition(stuck.deliver(&[])), None);
    let (next, _signal) = join(&store, to_first());
    assert_eq!(assigned(&next).len(), 2);
    drop(stuck);
    assert_eq!(store.members(&billing).unwrap().members.len(), 1);
}

#[test]
fn groups_show_their_members() {
    let (_disk, store) = new_store();
    store.set_topics(&topics(1, 1, 3));
    let named = |name: &str| MemberSpec { name: Some(name.into()), ..to_first() };
    let (b, _signal) = join(&store, named("b"));
    let (_a, _signal) = join(&store, named("a"));
    b.poll().unwrap();
    let shown = store.members(b.group()).unwrap();
    assert_eq!((shown.is_exclusive, shown.group_epoch.get(), shown.members.len()), (false, 2, 2));
    let names: Vec<_> = shown.members.iter().map(|member| member.name.as_deref()).collect();
    assert_eq!(names, [Some("b"), Some("a")]);
    assert_eq!((shown.members[0].epoch.get(), shown.members[1].epoch.get()), (2, 0));
    let counts = |of: &dyn Fn(usize) -> usize| [of(0), of(1)];
    assert_eq!(counts(&|member| shown.members[member].target.len()), [2, 1]);
    assert_eq!(counts(&|member| shown.members[member].owned.len()), [2, 0]);
    assert_eq!(store.groups()[0].member_count, 2);
    let refused = store.join(b.group(), named("a"), GroupLifetime::Lasting, &Arc::new(Signal::new()));
    assert!(matches!(refused, Err(Error::DuplicateMemberName { .. })), "{refused:?}");
    assert!(matches!(store.delete_group(b.group()), Err(Error::GroupNotEmpty { .. })));
}

#[test]
fn members_that_start_together_meet_each_their_own_partitions() {
    let (_disk, store) = new_store();
    store.set_topics(&topics(1, 1, 2));
    let (first, _signal) = join(&store, to_first());
    let (second, _signal) = join(&store, to_first());
    let (of_first, of_second) = (first.poll().unwrap().assigned, second.poll().unwrap().assigned);
    assert_eq!(first.starts(&of_first), [Start::Reset]);
    drop(first.commit(&[commit(of_first[0].partition, 70)]).unwrap());
    // The group has a position in the topic now, and yet has not met this partition.
    assert_eq!(second.starts(&of_second), [Start::Reset]);
    drop(second.commit(&[commit(of_second[0].partition, 80)]).unwrap());
    // What is added after that starts at its start; so it does if it was added while nobody was there.
    store.set_topics(&topics(2, 1, 3));
    let added = [first.poll().unwrap().assigned, second.poll().unwrap().assigned].concat();
    assert_eq!(first.starts(&added), [Start::LogStart]);
    drop((first, second));
    store.set_topics(&topics(3, 1, 4));
    let (third, _signal) = join(&store, to_first());
    let starts = third.starts(&third.poll().unwrap().assigned);
    assert!(matches!(starts[..2], [Start::At(_), Start::At(_)]), "{starts:?}");
    assert_eq!(starts[2..], [Start::LogStart, Start::LogStart]);
}

// A member that failed between finding out where the group starts and committing it took that along.
#[test]
fn where_a_group_starts_is_what_was_noted_first_until_it_is_committed() {
    let (_disk, store) = new_store();
    store.set_topics(&topics(1, 1, 2));
    let at = |offset| commit(partition(1, 0), offset).position;
    for lifetime in [GroupLifetime::Lasting, GroupLifetime::Ephemeral] {
        let id = group(&format!("{lifetime}"));
        let join = || store.join(&id, to_first(), lifetime, &Arc::new(Signal::new())).unwrap();
        let (first, second) = (join(), join());
        let came = first.poll().unwrap().assigned;
        assert_eq!((came[0].partition, first.starts(&came)), (partition(1, 0), vec![Start::Reset]));
        assert_eq!(first.note_start(came[0].partition, at(70)), at(70));
        assert_eq!(first.note_start(came[0].partition, at(80)), at(70), "another has found out before");
        drop(first);
        let taken = second.poll().unwrap().assigned;
        assert_eq!(second.starts(&taken), [Start::Noted(at(70)), Start::Reset]);
        drop(second.commit(&[commit(taken[1].partition, 30)]).unwrap());
        assert_eq!(second.starts(&taken)[0], Start::Noted(at(70)));
        drop(second.commit(&[commit(taken[0].partition, 71)]).unwrap());
        assert!(matches!(&second.starts(&taken)[0], Start::At(found) if found.position == at(71)));
        drop(second);
        // A lasting group goes on; the ephemeral one has ended, and starts anew.
        let third = join();
        let is_lasting = matches!(third.starts(&taken)[..], [Start::At(_), Start::At(_)]);
        assert_eq!(is_lasting, lifetime == GroupLifetime::Lasting);
    }
    // What was noted and never committed goes with the group, and with the topic.
    let id = group("gone");
    let join = || store.join(&id, to_first(), GroupLifetime::Lasting, &Arc::new(Signal::new())).unwrap();
    let noting = |member: &Member| {
        let came = member.poll().unwrap().assigned;
        assert_eq!(member.starts(&came), [Start::Reset, Start::Reset]);
        member.note_start(came[0].partition, at(7));
    };
    noting(&join());
    assert!(matches!(store.delete_group(&id), Err(Error::UnknownGroup { .. })));
    noting(&join());
    store.forget_topics(|known| known == topic(1)).unwrap();
    noting(&join());
    drop(store.set_positions(&id, &[commit(partition(1, 0), 9)]).unwrap());
    drop(store.delete_group(&id).unwrap());
    noting(&join());
}

#[test]
fn topics_that_come_later_reach_patterns_of_all_groups() {
    let (_disk, store) = new_store();
    store.set_topics(&topics(1, 1, 1));
    let (member, signal) = join(&store, to_all());
    assert_eq!(member.starts(&member.poll().unwrap().assigned), [Start::Reset]);
    signal.arm();
    store.set_topics(&topics(2, 2, 1));
    assert!(has_news(&signal));
    assert_eq!(member.starts(&member.poll().unwrap().assigned), [Start::LogStart]);
    // Another group meets both.
    let other =
        store.join(&group("other"), to_all(), GroupLifetime::Lasting, &Arc::new(Signal::new())).unwrap();
    assert_eq!(other.starts(&other.poll().unwrap().assigned), [Start::Reset, Start::Reset]);
    let gone = store.join(
        &group("gone"),
        MemberSpec {
            subscription: Subscription { topics: vec![topic(9)], patterns: Vec::new() },
            ..to_all()
        },
        GroupLifetime::Lasting,
        &Arc::new(Signal::new()),
    );
    assert!(matches!(gone, Err(Error::UnknownTopic { topic_id }) if topic_id == topic(9)), "{gone:?}");
    assert_eq!(store.groups().len(), 2, "one that nobody could join is not there");
}

#[test]
fn an_ephemeral_group_is_in_memory_and_ends_with_its_last_member() {
    let (disk, store) = new_store();
    store.set_topics(&topics(1, 1, 2));
    let (watch, before) = (group("watch"), disk.operation_count());
    let join = || store.join(&watch, to_first(), GroupLifetime::Ephemeral, &Arc::new(Signal::new()));
    let (first, second) = (join().unwrap(), join().unwrap());
    let at = assigned(&first)[0];
    assert!(first.commit(&[commit(at, 7)]).unwrap().is_none());
    assert!(matches!(first.commit(&[commit(at, 6)]), Err(Error::CommitBackwards { .. })));
    assert_eq!(fenced_partition(second.commit(&[commit(at, 8)])), Some(at));
    assert_eq!(offset_of(&store, &watch, at), Some(7));
    assert_eq!(store.held_offset(&watch, at), None);
    let listed = &store.groups()[0];
    assert_eq!(
        (listed.lifetime, listed.is_registered, listed.position_count),
        (GroupLifetime::Ephemeral, false, 1)
    );
    assert_eq!(store.positions(&watch).unwrap()[0].0, at);
    let lasting = store.join_exclusively(&watch, GroupKind::Consumer, GroupLifetime::Lasting);
    assert!(matches!(lasting, Err(Error::GroupLifetimeMismatch { .. })), "{lasting:?}");
    // Who takes over goes on from there.
    drop(first);
    let taken = second.poll().unwrap().assigned;
    assert!(matches!(&second.starts(&taken)[0], Start::At(found) if found.position.offset == Offset::new(7)));
    drop(second);
    assert_eq!((store.groups(), offset_of(&store, &watch, at)), (vec![], None));
    assert_eq!(join().unwrap().committed(at), None);
    assert_eq!((disk.operation_count(), store.log().log_end_offset()), (before, Offset::ZERO));
    // A registered group stays one.
    drop(store.set_positions(&watch, &[commit(at, 1)]).unwrap());
    assert!(matches!(join(), Err(Error::GroupLifetimeMismatch { .. })));
}

#[test]
fn thousands_of_groups_come_and_go_and_leave_nothing() {
    let (_disk, store) = new_store();
    store.set_topics(&topics(1, 1, 2));
    let signal = Arc::new(Signal::new());
    let members: Vec<_> = (0..10_000)
        .map(|number| group(&format!("group-{number}")))
        .map(|id| store.join(&id, to_first(), GroupLifetime::Lasting, &signal).unwrap())
        .collect();
    store.set_topics(&topics(2, 1, 3));
    assert!(members.iter().all(|member| assigned(member).len() == 3));
    assert_eq!(store.groups().len(), 10_000);
    drop(members);
    assert_eq!(store.groups(), []);
}

#[test]
fn one_who_takes_over_waits_for_the_commit_that_is_under_way() {
    let (gate, monotonic) = (Arc::new(Gate::default()), Arc::new(ManualMonotonicClock::default()));
    let log = open_log(&SimDisk::new(1)).unwrap();
    let store = GroupStore::open_with_monotonic(log, gate.clone(), monotonic.clone()).unwrap();
    store.set_topics(&topics(1, 1, 2));
    let (slow, _signal) = join(&store, to_first());
    let moved = assigned(&slow)[1];
    slow.deliver(&[(moved, Offset::new(5))]).unwrap();
    let (next, _signal) = join(&store, to_first());
    next.poll().unwrap();
    gate.set_shut(true);
    std::thread::scope(|scope| {
        // Its partition is its own when it begins, and another's before it is done.
        let committing = scope.spawn(|| drop(slow.commit(&[commit(moved, 5)]).unwrap()));
        gate.wait_until_asked(1);
        monotonic.advance_ms(100);
        let taken = next.poll().unwrap().assigned;
        let next = &next;
        let starting = scope.spawn(move || (taken[0].partition, next.starts(&taken)));
        std::thread::sleep(Duration::from_millis(20));
        let is_held_up = !starting.is_finished() && !committing.is_finished();
        gate.set_shut(false);
        assert!(is_held_up);
        let (taken, starts) = starting.join().unwrap();
        assert_eq!(taken, moved);
        assert!(matches!(&starts[0], Start::At(at) if at.position.offset == Offset::new(5)), "{starts:?}");
    });
    assert_eq!(fenced_partition(slow.commit(&[commit(moved, 6)])), Some(moved));
}

/// Members on threads of their own come, take partitions over, deliver, commit and go. Each partition is a counter: whoever
/// owns it reads the number that is committed, and commits the next. Two owners at a time, or one that takes over without
/// seeing the last commit, would commit a number twice.
#[test]
fn no_commit_is_missed_and_none_is_made_twice_while_members_come_and_go() {
    const THREADS: u64 = 4;
    const PARTITIONS: u32 = 6;
    let disk = SimDisk::new(1);
    let store = open(&disk).unwrap();
    store.set_topics(&topics(1, 1, PARTITIONS));
    let commits: Mutex<Vec<(PartitionIdentity, u64)>> = Mutex::default();
    let (made, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for seed in 0..THREADS {
            let (store, commits, made, is_over) = (&store, &commits, &made, &is_over);
            scope.spawn(move || {
                let choices = &mut Choices::new(seed);
                while !is_over.load(Ordering::SeqCst) {
                    let spec = MemberSpec { revoke_timeout_ms: choices.below(3), ..to_first() };
                    let (member, signal) = join(store, spec);
                    for _ in 0..choices.below(60) {
                        work(&member, commits, choices);
                        if made.fetch_add(1, Ordering::SeqCst) > 20_000 {
                            is_over.store(true, Ordering::SeqCst);
                        }
                        if choices.below(8) == 0 {
                            signal.arm();
                            let wait = member.wait().unwrap_or_default().min(Duration::from_millis(1));
                            signal.wait_until(Instant::now() + wait);
                        }
                    }
                }
            });
        }
        let store = &store;
        let is_over = &is_over;
        scope.spawn(move || {
            while !is_over.load(Ordering::SeqCst) {
                let _ = store.rewrite().unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    });
    let mut commits = commits.into_inner().unwrap();
    commits.sort_by_key(|(at, offset)| (at.partition, *offset));
    assert!(commits.len() as u64 > REWRITE_MIN_RECORDS, "{} commits", commits.len());
    for number in 0..PARTITIONS {
        let of_partition = commits.iter().filter(|(at, _)| at.partition.get() == number);
        let offsets: Vec<u64> = of_partition.map(|(_, offset)| *offset).collect();
        assert!(offsets.iter().copied().eq(1..=offsets.len() as u64), "partition {number}: {offsets:?}");
        assert_eq!(offset_of(&store, &group("billing"), partition(1, number)), offsets.last().copied());
    }
}

/// A poll, a delivery and mostly a commit.
fn work(member: &Member, commits: &Mutex<Vec<(PartitionIdentity, u64)>>, choices: &mut Choices) {
    let changes = member.poll().unwrap();
    member.release(&changes.revoking);
    // From here on no commit of those before it is under way.
    drop(member.starts(&changes.assigned));
    for at in (0..6).map(|number| partition(1, number)) {
        if choices.below(2) == 0 {
            continue;
        }
        let from = member.committed(at).map_or(0, |committed| committed.position.offset.get());
        if !member.deliver(&[(at, Offset::new(from + 1))]).unwrap()[0] {
            continue;
        }
        // Owned from before that on: nobody else can have committed since.
        let from = member.committed(at).map_or(0, |committed| committed.position.offset.get());
        if choices.below(16) == 0 {
            continue;
        }
        match member.commit(&[commit(at, from + 1)]) {
            Ok(_) => commits.lock().unwrap().push((at, from + 1)),
            Err(error) => assert!(matches!(error, Error::FencedMemberEpoch { .. }), "{error}"),
        }
    }
}
