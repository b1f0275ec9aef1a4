//! The coordinator, case by case: what each member is told, and when.

#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use tailwater_groups::coordinator::assignor::Assignor;
use tailwater_groups::coordinator::{
    Changes, Coordinator, GroupEpoch, JoinError, MemberId, MemberSpec, MonotonicMs, Subscription, TopicInfo,
    TopicPattern, Topics,
};
use tailwater_log::{Offset, PartitionId, PartitionIdentity, TopicId};

fn topic(number: u8) -> TopicId {
    TopicId::from_bytes([number; 16])
}

fn at(topic_number: u8, number: u32) -> PartitionIdentity {
    PartitionIdentity { topic_id: topic(topic_number), partition: PartitionId::new(number) }
}

fn topics(version: u64, of: &[(u8, &str, u32)]) -> Arc<Topics> {
    let info = |(number, name, partition_count): &(u8, &str, u32)| TopicInfo {
        id: topic(*number),
        name: (*name).into(),
        partition_count: *partition_count,
    };
    Arc::new(Topics::new(version, of.iter().map(info)))
}

fn to(topics: &[u8]) -> MemberSpec {
    let topics = topics.iter().copied().map(topic).collect();
    let subscription = Subscription { topics, patterns: Vec::new() };
    MemberSpec { subscription, revoke_timeout_ms: 100, ..MemberSpec::default() }
}

fn matching(pattern: &str) -> MemberSpec {
    let patterns = vec![TopicPattern::new(pattern).unwrap()];
    MemberSpec { subscription: Subscription { topics: Vec::new(), patterns }, ..MemberSpec::default() }
}

fn named(name: &str, spec: MemberSpec) -> MemberSpec {
    MemberSpec { name: Some(name.into()), ..spec }
}

/// A coordinator and the time.
struct Group {
    coordinator: Coordinator,
    now: MonotonicMs,
}

const A: MemberId = MemberId::new(1);
const B: MemberId = MemberId::new(2);
const C: MemberId = MemberId::new(3);

impl Group {
    fn new(of: &[(u8, &str, u32)]) -> Self {
        let coordinator = Coordinator::new(GroupEpoch::default(), topics(1, of));
        Self { coordinator, now: MonotonicMs::new(1000) }
    }

    fn join(&mut self, id: MemberId, spec: MemberSpec) {
        self.coordinator.join(self.now, id, spec, |_| false).unwrap();
    }

    fn poll(&mut self, id: MemberId) -> Changes {
        self.coordinator.poll(self.now, id).unwrap()
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now.saturating_add_ms(ms);
    }

    fn deliver(&mut self, id: MemberId, partition: PartitionIdentity, next: u64) -> bool {
        self.coordinator.deliver(self.now, id, &[(partition, Offset::new(next))]).unwrap()[0]
    }

    fn commit(&mut self, id: MemberId, partition: PartitionIdentity, offset: u64) -> bool {
        let may = self.coordinator.check_commit(id, [partition]).is_ok();
        if may {
            self.coordinator.commit(id, [(partition, Offset::new(offset))]);
        }
        may
    }

    fn owned(&self, id: MemberId) -> Vec<PartitionIdentity> {
        let listed = self.coordinator.members();
        listed.into_iter().find(|listing| listing.id == id).unwrap().owned
    }
}

fn assigned(changes: &Changes) -> Vec<PartitionIdentity> {
    changes.assigned.iter().map(|assigned| assigned.partition).collect()
}

/// A has all four partitions, has delivered of the last two, and B has joined.
fn two_with_deliveries() -> Group {
    let mut group = Group::new(&[(1, "orders", 4)]);
    group.join(A, to(&[1]));
    assert_eq!(assigned(&group.poll(A)), [0, 1, 2, 3].map(|number| at(1, number)));
    for number in 0..4 {
        assert!(group.deliver(A, at(1, number), 10));
    }
    group.join(B, to(&[1]));
    group
}

#[test]
fn an_idle_partition_moves_without_its_owners_help() {
    let mut group = Group::new(&[(1, "orders", 4)]);
    group.join(A, to(&[1]));
    group.poll(A);
    assert!(group.deliver(A, at(1, 0), 10));
    assert!(group.commit(A, at(1, 0), 10));
    group.join(B, to(&[1]));
    assert_eq!(group.coordinator.take_woken(), [A]);
    let gained = assigned(&group.poll(B));
    assert_eq!(gained.len(), 2);
    // It does not know yet, and can do no harm.
    assert!(!group.deliver(A, gained[0], 11));
    assert!(!group.commit(A, gained[0], 11));
    let changes = group.poll(A);
    assert_eq!((changes.revoked, changes.revoking, changes.lost), (gained, vec![], vec![]));
    assert_eq!(group.poll(A), Changes::default());
}

#[test]
fn an_owner_with_uncommitted_records_is_asked_and_may_commit() {
    let mut group = two_with_deliveries();
    assert_eq!(group.poll(B), Changes::default());
    let revoking = group.poll(A).revoking;
    assert_eq!(revoking.len(), 2);
    // Delivers no more of them, and all of the others.
    assert!(!group.deliver(A, revoking[0], 20));
    assert_eq!(group.owned(A).len(), 4);
    assert!(group.commit(A, revoking[0], 9), "a commit of a part is one");
    assert!(group.poll(B).is_empty());
    assert_eq!(group.coordinator.take_woken(), [A]);
    // The commit of the rest gives it up.
    assert!(group.commit(A, revoking[0], 10));
    assert_eq!(group.coordinator.take_woken(), [B]);
    assert_eq!(assigned(&group.poll(B)), [revoking[0]]);
    assert!(!group.commit(A, revoking[0], 11));
    // So does letting go of it without a commit.
    assert_eq!(group.coordinator.release(A, &revoking), []);
    assert_eq!(assigned(&group.poll(B)), [revoking[1]]);
    assert!(group.poll(A).is_empty());
    assert_eq!((group.owned(A).len(), group.owned(B).len()), (2, 2));
}

#[test]
fn an_owner_that_takes_too_long_is_fenced_for_that_partition_alone() {
    let mut group = two_with_deliveries();
    group.poll(B);
    let deadline = group.now.saturating_add_ms(100);
    assert_eq!(group.coordinator.wait(B), Some(deadline));
    assert_eq!(group.coordinator.wait(A), None, "it waits for nobody");
    group.pass(99);
    assert!(group.poll(B).is_empty());
    group.pass(1);
    let gained = assigned(&group.poll(B));
    assert_eq!(gained.len(), 2);
    assert!(!group.commit(A, gained[0], 10));
    let kept = group.owned(A);
    assert!(group.commit(A, kept[0], 10) && group.deliver(A, kept[1], 11));
    assert_eq!(group.poll(A).lost, gained);
    assert_eq!(group.coordinator.next_deadline(), None);
}

#[test]
fn one_that_is_fenced_while_it_gives_up_learns_it_there() {
    let mut group = two_with_deliveries();
    let revoking = group.poll(A).revoking;
    group.pass(100);
    group.coordinator.tick(group.now);
    assert_eq!(group.coordinator.release(A, &revoking), revoking);
    assert!(group.poll(A).is_empty());
}

#[test]
fn a_revocation_is_withdrawn_when_the_partition_is_its_owners_again() {
    let mut group = two_with_deliveries();
    assert!(group.coordinator.leave(group.now, B));
    assert_eq!(group.coordinator.next_deadline(), None);
    assert!(group.poll(A).is_empty(), "it never knew");
    assert!((0..4).all(|number| group.deliver(A, at(1, number), 20)));
    // If it has been told, and gives it up, it is assigned anew.
    group.join(C, to(&[1]));
    let revoking = group.poll(A).revoking;
    group.coordinator.leave(group.now, C);
    assert_eq!(group.coordinator.release(A, &revoking), []);
    assert_eq!(assigned(&group.poll(A)), revoking);
}

#[test]
fn who_leaves_frees_what_it_had_and_those_who_gain_are_woken() {
    let mut group = two_with_deliveries();
    group.poll(A);
    group.poll(B);
    group.coordinator.take_woken();
    assert!(group.coordinator.leave(group.now, A));
    assert_eq!(group.coordinator.take_woken(), [B]);
    assert_eq!(assigned(&group.poll(B)).len(), 4);
    assert!(group.coordinator.poll(group.now, A).is_err());
    assert!(
        group.coordinator.deliver(group.now, A, &[]).is_err()
            && group.coordinator.check_commit(A, []).is_err()
    );
    assert!(!group.coordinator.leave(group.now, A));
}

#[test]
fn names_are_the_order_and_come_before_those_without() {
    let mut group = Group::new(&[(1, "orders", 3)]);
    let ranged = |spec| MemberSpec { assignor: Assignor::Range, ..spec };
    group.join(A, ranged(to(&[1])));
    group.join(B, ranged(named("zebra", to(&[1]))));
    group.join(C, ranged(named("ant", to(&[1]))));
    assert_eq!([0, 1, 2].map(|number| group.coordinator.target(at(1, number))), [C, B, A].map(Some));
    let duplicate = ranged(named("ant", to(&[1])));
    let refused = group.coordinator.join(group.now, MemberId::new(4), duplicate, |_| false);
    assert_eq!(refused, Err(JoinError::DuplicateName { name: "ant".into() }));
    let uniform = group.coordinator.join(group.now, MemberId::new(4), to(&[1]), |_| false);
    let (assignor, requested) = (Assignor::Range, Assignor::Uniform);
    assert_eq!(uniform, Err(JoinError::AssignorMismatch { assignor, requested }));
    let unknown = group.coordinator.join(group.now, MemberId::new(4), ranged(to(&[9])), |_| false);
    assert_eq!(unknown, Err(JoinError::UnknownTopic { topic_id: topic(9) }));
    assert_eq!(group.coordinator.member_count(), 3);
}

#[test]
fn an_exclusive_member_has_all_for_itself() {
    let mut group = Group::new(&[(1, "orders", 3)]);
    group.coordinator.join_exclusively(group.now, A, None).unwrap();
    assert_eq!(group.coordinator.join(group.now, B, to(&[1]), |_| false), Err(JoinError::InUse));
    assert_eq!(group.coordinator.join_exclusively(group.now, B, None), Err(JoinError::InUse));
    assert!(group.poll(A).is_empty());
    assert!(group.deliver(A, at(7, 1), 5) && group.commit(A, at(7, 1), 5));
    assert!(group.coordinator.leave(group.now, A));
    group.join(B, to(&[1]));
    assert_eq!(group.coordinator.join_exclusively(group.now, C, None), Err(JoinError::InUse));
}

#[test]
fn a_member_that_does_not_poll_is_evicted_and_rejoins_by_polling() {
    let mut group = Group::new(&[(1, "orders", 4)]);
    let limited = || MemberSpec { max_poll_interval_ms: Some(50), ..to(&[1]) };
    group.join(A, limited());
    group.join(B, to(&[1]));
    let of_a = assigned(&group.poll(A));
    group.poll(B);
    assert!(group.deliver(A, of_a[0], 5));
    assert_eq!(group.coordinator.wait(B), Some(group.now.saturating_add_ms(50)));
    group.pass(40);
    group.poll(A);
    group.pass(40);
    assert!(group.poll(B).is_empty(), "it has polled in between");
    assert_eq!(group.coordinator.wait(B), Some(group.now.saturating_add_ms(10)));
    group.pass(10);
    assert_eq!(assigned(&group.poll(B)), of_a);
    assert!(!group.commit(A, of_a[0], 5));
    assert!(group.coordinator.members()[0].is_evicted);
    group.pass(1000);
    let changes = group.poll(A);
    assert_eq!((changes.assigned.len(), changes.lost, changes.has_rejoined), (2, of_a, true));
    assert_eq!((group.poll(B).revoked.len(), group.owned(B).len()), (2, 2));
}

#[test]
fn one_that_waits_is_not_evicted_and_those_who_sleep_learn_of_a_new_limit() {
    let mut group = Group::new(&[(1, "orders", 2)]);
    let limited = || MemberSpec { max_poll_interval_ms: Some(50), ..to(&[1]) };
    group.join(A, limited());
    group.join(B, to(&[1]));
    group.poll(A);
    group.coordinator.wait(A);
    group.pass(60);
    group.poll(B);
    assert_eq!(group.coordinator.wait(B), None);
    group.pass(1000);
    group.coordinator.tick(group.now);
    assert_eq!(group.coordinator.take_woken(), []);
    // It has records, and goes to work: B is to look after it.
    assert!(group.poll(A).is_empty());
    assert_eq!(group.coordinator.take_woken(), []);
    assert!(group.deliver(A, at(1, 0), 1));
    assert_eq!(group.coordinator.take_woken(), [B]);
    group.poll(B);
    assert_eq!(group.coordinator.wait(B), Some(group.now.saturating_add_ms(50)));
}

#[test]
fn patterns_pick_up_topics_that_come_later_and_these_start_at_their_start() {
    let mut group = Group::new(&[(1, "Orders.eu", 1), (2, "bills", 1)]);
    group.join(A, matching("orders.*"));
    assert!(!group.poll(A).assigned[0].came_later);
    group.coordinator.set_topics(
        group.now,
        &topics(2, &[(1, "Orders.eu", 2), (2, "bills", 1), (3, "ORDERS.us", 1), (4, "other", 1)]),
    );
    assert_eq!(group.coordinator.take_woken(), [A]);
    let changes = group.poll(A);
    assert_eq!(assigned(&changes), [at(1, 1), at(3, 0)]);
    assert!(changes.assigned.iter().all(|assigned| assigned.came_later));
    // A topic that nobody was subscribed to when it came is met when somebody is.
    group.join(B, to(&[4]));
    assert!(!group.poll(B).assigned[0].came_later);
    // Older news are none.
    group.coordinator.set_topics(group.now, &topics(1, &[]));
    assert!(group.poll(A).is_empty());
}

#[test]
fn what_the_group_has_met_before_came_later_where_nothing_is_committed() {
    let mut group = Group::new(&[(1, "orders", 1), (2, "bills", 1)]);
    let met = |id| id == topic(1);
    group.coordinator.join(group.now, A, to(&[1, 2]), met).unwrap();
    let later: Vec<_> = group.poll(A).assigned.iter().map(|assigned| assigned.came_later).collect();
    assert_eq!(later, [true, false]);
}

#[test]
fn a_deleted_topic_is_told_once_and_its_partitions_are_lost() {
    let mut group = Group::new(&[(1, "orders", 2), (2, "bills", 2)]);
    group.join(A, to(&[1, 2]));
    group.join(B, matching("b*"));
    group.poll(A);
    group.poll(B);
    let lost: Vec<_> = group.owned(A).into_iter().filter(|owned| owned.topic_id == topic(2)).collect();
    lost.iter().for_each(|owned| assert!(group.deliver(A, *owned, 5)));
    let lost_of_b = group.owned(B);
    group.coordinator.set_topics(group.now, &topics(2, &[(1, "orders", 2)]));
    let changes = group.poll(A);
    assert_eq!((changes.lost, changes.deleted[0].id), (lost, topic(2)));
    let changes = group.poll(B);
    assert_eq!((changes.lost, &*changes.deleted[0].name), (lost_of_b, "bills"));
    assert!(group.poll(A).is_empty() && group.poll(B).is_empty());
    // Created again, it is another topic.
    group.coordinator.set_topics(group.now, &topics(3, &[(1, "orders", 2), (5, "bills", 1)]));
    assert!(group.poll(A).is_empty());
    let changes = group.poll(B);
    assert!(changes.assigned[0].came_later && assigned(&changes) == [at(5, 0)]);
}

#[test]
fn the_member_epoch_follows_when_all_is_given_up() {
    let mut group = two_with_deliveries();
    let epochs = |group: &Group| {
        (group.coordinator.group_epoch().get(), group.coordinator.member_epoch(A).unwrap().get())
    };
    assert_eq!(epochs(&group), (2, 1));
    assert_eq!(group.coordinator.assignment_epoch().get(), 2);
    let revoking = group.poll(A).revoking;
    assert_eq!(epochs(&group), (2, 1));
    group.coordinator.release(A, &revoking);
    group.poll(A);
    assert_eq!(epochs(&group), (2, 2));
}

#[test]
fn members_that_keep_their_partitions_are_not_disturbed() {
    let mut group = Group::new(&[(1, "orders", 12), (2, "bills", 1)]);
    group.join(A, to(&[1]));
    group.join(B, to(&[2]));
    group.poll(A);
    group.poll(B);
    group.coordinator.take_woken();
    group.join(C, to(&[1]));
    assert_eq!(group.coordinator.take_woken(), [A], "B has nothing to do with it");
    group.poll(C);
    group.coordinator.leave(group.now, C);
    assert_eq!(group.coordinator.take_woken(), []);
    let gained = group.poll(A);
    assert_eq!((gained.revoked.len(), gained.assigned.len()), (6, 6));
}

#[test]
fn one_that_sleeps_is_woken_when_it_has_a_deadline_to_wait_for() {
    let mut group = Group::new(&[(1, "orders", 2)]);
    let ranged = |name| MemberSpec { assignor: Assignor::Range, ..named(name, to(&[1])) };
    group.join(A, ranged("a"));
    group.join(B, ranged("b"));
    group.join(C, ranged("c"));
    for id in [A, B, C] {
        group.poll(id);
    }
    assert!(group.deliver(B, at(1, 1), 5));
    assert_eq!(group.coordinator.wait(C), None);
    // B gets what A had, and C is to get what B has and goes on working at.
    group.coordinator.leave(group.now, A);
    assert_eq!(group.coordinator.take_woken(), [B, C]);
    assert!(group.poll(C).is_empty());
    assert_eq!(group.coordinator.wait(C), Some(group.now.saturating_add_ms(100)));
    group.pass(100);
    assert_eq!(assigned(&group.poll(C)), [at(1, 1)]);
}

#[test]
fn one_that_stops_waiting_without_a_poll_is_looked_after_again() {
    let mut group = Group::new(&[(1, "orders", 2)]);
    group.join(A, MemberSpec { max_poll_interval_ms: Some(50), ..to(&[1]) });
    group.poll(A);
    group.coordinator.wait(A);
    group.pass(200);
    // A task that waited was dropped, and its consumer says so.
    group.coordinator.deliver(group.now, A, &[]).unwrap();
    group.pass(49);
    group.coordinator.tick(group.now);
    assert!(!group.coordinator.members()[0].is_evicted);
    group.pass(1);
    group.coordinator.tick(group.now);
    assert!(group.coordinator.members()[0].is_evicted);
}
