//! Giving partitions up: outstanding records, the listener's last commit, timeouts, eviction, auto-commit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::members::{Notes, Told, all_places, committed, fill, of, places, poll, read};
use common::reading::broker_with;
use common::{eventually, partition};
use tailwater::{
    AutoCommit, Broker, Consumer, ConsumerOptions, Error, Event, Offset, Reset, SeekTo, TopicConfig,
};

fn options(broker: &Broker) -> ConsumerOptions {
    broker.consumer("billing")
}

fn member(broker: &Broker) -> Consumer {
    options(broker).subscribe(&["orders"]).unwrap()
}

#[test]
fn what_is_settled_moves_at_once_without_its_owner() {
    let broker = broker_with(2);
    fill(&broker, "orders", 0..2);
    let told = Told::default();
    let mut first = options(&broker).listener(Notes::new(&told)).subscribe(&["orders"]).unwrap();
    assert_eq!(poll(&mut first).len(), 4);
    first.commit().wait().unwrap();
    fill(&broker, "orders", 2..3);
    // The first one does not poll: the second has half of it all the same.
    let mut second = member(&broker);
    assert_eq!(poll(&mut second), ["orders-1:2"]);
    told.take();
    assert_eq!(poll(&mut first), ["orders-0:2"]);
    assert_eq!(told.take(), ["-orders-1"]);
}

#[test]
fn an_owner_with_records_at_hand_keeps_the_partition_until_it_commits() {
    let broker = broker_with(2);
    fill(&broker, "orders", 0..2);
    let told = Told::default();
    let mut first = options(&broker).listener(Notes::new(&told)).subscribe(&["orders"]).unwrap();
    let records = first.poll(Duration::ZERO).unwrap();
    assert_eq!(records.count(), 4);
    let mut second = member(&broker);
    assert!(poll(&mut second).is_empty());
    assert!(places(&second).is_empty());
    // A part of it is not enough.
    let half = records.iter().find(|r| r.topic_partition() == &partition("orders", 1)).unwrap();
    first.commit_to(&[half.next_cursor()]).wait().unwrap();
    assert!(poll(&mut second).is_empty() && places(&second).is_empty());
    first.commit().wait().unwrap();
    fill(&broker, "orders", 2..3);
    assert_eq!(poll(&mut second), ["orders-1:2"]);
    assert_eq!(told.take(), ["+orders-0", "+orders-1"]);
    // What it was not told of yet is gone: nothing can be committed in it, and it says which.
    let behind = half.next_cursor();
    let error = first.commit_to(&[behind]).wait().unwrap_err();
    let Error::FencedMemberEpoch { partition: Some(place), .. } = &error else { panic!("{error}") };
    assert_eq!(place.to_string(), "orders-1");
    assert_eq!(poll(&mut first), ["orders-0:2"]);
    assert_eq!(told.take(), ["-orders-1"]);
    let error = first.commit_to(&[behind]).wait().unwrap_err();
    assert!(matches!(error, Error::NotAssigned { .. }), "{error}");
}

#[test]
fn the_last_commit_in_the_listener_is_where_the_next_owner_goes_on() {
    let broker = broker_with(2);
    fill(&broker, "orders", 0..4);
    let told = Told::default();
    let done = told.clone();
    let notes = Notes::new(&told).on_revoked(move |member, partitions| {
        assert_eq!(member.assignment().len(), 2, "it has them still");
        let at = member.position(&partitions[0])?;
        assert!(member.committed(&partitions[0])?.unwrap().offset < at.offset);
        member.commit().wait()?;
        done.note("committed");
        Ok(())
    });
    let mut first = options(&broker).max_records(4).listener(notes).subscribe(&["orders"]).unwrap();
    assert_eq!(poll(&mut first).len() + poll(&mut first).len(), 8);
    let mut second = member(&broker);
    assert!(poll(&mut second).is_empty());
    fill(&broker, "orders", 4..5);
    assert_eq!(poll(&mut first), ["orders-0:4"]);
    assert_eq!(told.take(), ["+orders-0", "+orders-1", "-orders-1", "committed"]);
    assert_eq!(poll(&mut second), ["orders-1:4"]);
}

#[test]
fn without_a_last_commit_the_next_owner_reads_again() {
    let broker = broker_with(2);
    fill(&broker, "orders", 0..2);
    let (mut first, mut second) = (member(&broker), member(&broker));
    drop(second);
    assert_eq!(poll(&mut first).len(), 4);
    second = member(&broker);
    assert!(poll(&mut second).is_empty());
    assert!(poll(&mut first).is_empty(), "it has read its own already");
    assert_eq!(poll(&mut second), ["orders-1:0", "orders-1:1"]);
    assert_eq!(places(&first), ["orders-0"]);
    first.commit().wait().unwrap();
    assert_eq!(committed(&broker, "billing", &partition("orders", 0)).unwrap().offset, Offset::new(2));
    assert_eq!(committed(&broker, "billing", &partition("orders", 1)).unwrap().offset, Offset::ZERO);
}

/// A member that is slow: half of what it has is another's by now.
fn fenced(broker: &Broker, options: ConsumerOptions) -> (Consumer, Consumer) {
    fill(broker, "orders", 0..2);
    let slow = options.revoke_timeout(Duration::from_millis(1));
    let mut slow = slow.subscribe(&["orders"]).unwrap();
    assert_eq!(poll(&mut slow).len(), 4);
    let mut second = broker.consumer("billing").subscribe(&["orders"]).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(poll(&mut second), of("orders-1", 0..2), "nobody but the one who waits looks at the time");
    (slow, second)
}

#[test]
fn who_does_not_commit_in_time_is_fenced_there_and_goes_on_elsewhere() {
    let broker = broker_with(2);
    let told = Told::default();
    let (mut slow, mut second) = fenced(&broker, options(&broker).listener(Notes::new(&told)));
    let error = slow.commit().wait().unwrap_err();
    let Error::FencedMemberEpoch { partition: Some(place), .. } = &error else { panic!("{error}") };
    assert_eq!(place.to_string(), "orders-1");
    told.take();
    fill(&broker, "orders", 2..3);
    assert_eq!(poll(&mut slow), ["orders-0:2"]);
    assert_eq!(told.take(), ["!orders-1"]);
    slow.commit().wait().unwrap();
    assert_eq!(poll(&mut second), ["orders-1:2"]);
    second.commit().wait().unwrap();
    assert!(poll(&mut slow).is_empty() && poll(&mut second).is_empty());
    assert_eq!(told.take(), [""; 0], "told once");
}

#[test]
fn a_revocation_that_is_withdrawn_disturbs_nobody() {
    let broker = broker_with(2);
    fill(&broker, "orders", 0..2);
    let told = Told::default();
    let mut first = options(&broker)
        .revoke_timeout(Duration::from_millis(150))
        .listener(Notes::new(&told))
        .subscribe(&["orders"])
        .unwrap();
    assert_eq!(poll(&mut first).len(), 4);
    told.take();
    let mut second = member(&broker);
    assert!(poll(&mut second).is_empty());
    drop(second);
    std::thread::sleep(Duration::from_millis(170));
    assert!(poll(&mut first).is_empty());
    assert_eq!(told.take(), [""; 0]);
    first.commit().wait().unwrap();
    fill(&broker, "orders", 2..3);
    assert_eq!(poll(&mut first).len(), 2);
}

#[test]
fn a_revocation_withdrawn_while_the_listener_runs_gives_the_partition_back() {
    let broker = broker_with(2);
    fill(&broker, "orders", 0..2);
    let told = Told::default();
    let second = Arc::new(Mutex::new(None::<Consumer>));
    let leaving = Arc::clone(&second);
    let notes = Notes::new(&told).on_revoked(move |member, _| {
        drop(leaving.lock().unwrap().take());
        member.commit().wait()
    });
    let mut first = options(&broker).listener(notes).subscribe(&["orders"]).unwrap();
    assert_eq!(poll(&mut first).len(), 4);
    *second.lock().unwrap() = Some(member(&broker));
    fill(&broker, "orders", 2..3);
    let mut values = poll(&mut first);
    values.extend(poll(&mut first));
    assert_eq!(values, ["orders-0:2", "orders-1:2"]);
    assert_eq!(told.take(), ["+orders-0", "+orders-1", "-orders-1", "+orders-1"]);
}

#[test]
fn who_does_not_poll_is_evicted_and_joins_again_with_its_next_poll() {
    let broker = broker_with(2);
    fill(&broker, "orders", 0..2);
    let told = Told::default();
    let mut stuck = options(&broker)
        .max_poll_interval(Duration::from_millis(200))
        .listener(Notes::new(&told))
        .subscribe(&["orders"])
        .unwrap();
    assert_eq!(poll(&mut stuck).len(), 4);
    let mut other = member(&broker);
    assert!(poll(&mut other).is_empty());
    std::thread::sleep(Duration::from_millis(220));
    assert_eq!(poll(&mut other).len(), 4);
    let described = broker.describe_group("billing").unwrap();
    assert_eq!(described.members.iter().map(|member| member.is_evicted).collect::<Vec<_>>(), [true, false]);
    told.take();
    let error = stuck.commit().wait().unwrap_err();
    assert!(matches!(error, Error::FencedMemberEpoch { .. }), "{error}");
    assert!(poll(&mut stuck).is_empty());
    assert_eq!(told.take(), ["!orders-0", "!orders-1"]);
    other.commit().wait().unwrap();
    fill(&broker, "orders", 2..3);
    assert_eq!(poll(&mut other).len(), 1);
    assert_eq!(poll(&mut stuck).len(), 1);
    assert_eq!(told.take().len(), 1);
    assert_eq!(all_places([&stuck, &other]), ["orders-0", "orders-1"]);
    assert!(broker.describe_group("billing").unwrap().members.iter().all(|member| !member.is_evicted));
}

// A poll that was interrupted was taken for one that still waits: the member was never evicted, whatever it did after it.
#[test]
fn an_interrupted_poll_does_not_count_as_waiting() {
    let broker = broker_with(2);
    let interval = Duration::from_millis(40);
    let mut stuck = options(&broker).max_poll_interval(interval).subscribe(&["orders"]).unwrap();
    let interrupter = stuck.interrupter();
    let waiting = std::thread::spawn(move || {
        assert!(matches!(stuck.poll(Duration::MAX), Err(Error::Interrupted)));
        stuck
    });
    std::thread::sleep(Duration::from_millis(20));
    interrupter.interrupt();
    let stuck = waiting.join().unwrap();
    std::thread::sleep(interval + Duration::from_millis(10));
    let mut other = member(&broker);
    other.poll(Duration::ZERO).unwrap();
    assert_eq!(all_places([&other]), ["orders-0", "orders-1"]);
    drop(stuck);
}

fn committing(broker: &Broker) -> ConsumerOptions {
    options(broker).auto_commit(AutoCommit::OnNextPoll)
}

#[test]
fn auto_commit_commits_what_earlier_polls_returned() {
    let broker = broker_with(1);
    fill(&broker, "orders", 0..6);
    let at = || committed(&broker, "billing", &partition("orders", 0)).unwrap().offset.get();
    let mut consumer = committing(&broker).max_records(2).subscribe(&["orders"]).unwrap();
    assert_eq!(poll(&mut consumer), of("orders-0", 0..2));
    assert_eq!(at(), 0);
    assert_eq!(poll(&mut consumer), of("orders-0", 2..4));
    assert_eq!(at(), 2);
    drop(consumer);
    assert_eq!(at(), 2, "dropping commits nothing");
    let mut consumer = committing(&broker).max_records(2).subscribe(&["orders"]).unwrap();
    assert_eq!(poll(&mut consumer), of("orders-0", 2..4));
    consumer.close().unwrap();
    assert_eq!(at(), 4, "closing does");
}

#[test]
fn auto_commit_lets_partitions_go_without_a_timeout() {
    let broker = broker_with(2);
    fill(&broker, "orders", 0..1);
    let mut first = committing(&broker).subscribe(&["orders"]).unwrap();
    assert_eq!(poll(&mut first).len(), 2);
    let mut second = committing(&broker).subscribe(&["orders"]).unwrap();
    assert!(poll(&mut second).is_empty());
    assert!(poll(&mut first).is_empty());
    assert!(poll(&mut second).is_empty(), "what the first was returned is committed");
    assert_eq!(places(&second), ["orders-1"]);
}

// The refused set was forgotten: what was returned of the partitions that the member still has was committed by no later
// poll, unless there was something new, and not by `close`.
#[test]
fn what_a_fenced_auto_commit_left_is_committed_by_the_next_poll_or_by_close() {
    for is_closed in [false, true] {
        let broker = broker_with(2);
        let told = Told::default();
        let (mut slow, _second) = fenced(&broker, committing(&broker).listener(Notes::new(&told)));
        told.take();
        let error = slow.poll(Duration::ZERO).unwrap_err();
        assert!(matches!(error, Error::FencedMemberEpoch { partition: Some(_), .. }), "{error}");
        assert_eq!(told.take(), ["!orders-1"], "it has been told, in the same poll");
        if is_closed {
            slow.close().unwrap();
        } else {
            // Told once; a loop that goes on sleeps.
            for _ in 0..3 {
                assert!(slow.poll(Duration::from_millis(1)).unwrap().is_empty());
            }
        }
        let at = committed(&broker, "billing", &partition("orders", 0)).unwrap().offset;
        assert_eq!(at, Offset::new(2), "closed: {is_closed}");
    }
}

// The set that a close commits is refused as a whole for one partition that was lost: the others were not committed, and
// the listener was asked to commit in the lost one.
#[test]
fn closing_commits_what_is_still_its_own_and_tells_what_is_lost() {
    let broker = broker_with(2);
    let told = Told::default();
    let notes = Notes::new(&told).on_revoked(|member, _| member.commit().wait());
    let (slow, mut second) = fenced(&broker, committing(&broker).listener(notes));
    told.take();
    let closed = slow.close();
    assert!(matches!(closed, Err(Error::FencedMemberEpoch { .. }) | Ok(())), "{closed:?}");
    assert_eq!(told.take(), ["!orders-1", "-orders-0"]);
    let at = committed(&broker, "billing", &partition("orders", 0)).unwrap().offset;
    assert_eq!(at, Offset::new(2));
    assert!(poll(&mut second).is_empty());
    assert_eq!(places(&second), ["orders-0", "orders-1"]);
}

#[test]
fn an_error_of_the_listener_is_the_polls_and_nothing_is_stuck() {
    let broker = broker_with(2);
    fill(&broker, "orders", 0..1);
    let told = Told::default();
    let is_failing = Arc::new(AtomicBool::new(true));
    let (assigning, revoking) = (Arc::clone(&is_failing), Arc::clone(&is_failing));
    let fail = |is_failing: &AtomicBool| {
        if is_failing.load(Ordering::SeqCst) { Err(Error::NothingToRead) } else { Ok(()) }
    };
    let notes =
        Notes::new(&told).on_assigned(move |_, _| fail(&assigning)).on_revoked(move |_, _| fail(&revoking));
    let mut first = options(&broker).listener(notes).subscribe(&["orders"]).unwrap();
    assert!(matches!(first.poll(Duration::ZERO), Err(Error::NothingToRead)));
    assert_eq!(poll(&mut first).len(), 2, "they are assigned all the same");
    let mut second = member(&broker);
    assert!(poll(&mut second).is_empty());
    assert!(matches!(first.poll(Duration::ZERO), Err(Error::NothingToRead)));
    assert_eq!(poll(&mut second), ["orders-1:0"], "it was given up all the same");
    assert!(poll(&mut first).is_empty());
    drop(second);
    assert!(matches!(first.poll(Duration::ZERO), Err(Error::NothingToRead)));
    assert_eq!(poll(&mut first), ["orders-1:0"]);
    assert!(matches!(first.close(), Err(Error::NothingToRead)));
    assert_eq!(told.take(), ["+orders-0", "+orders-1", "-orders-1", "+orders-1", "-orders-0", "-orders-1"]);
    // It has left.
    assert_eq!(places(&member(&broker)).len(), 2);
}

// An event of the same poll was returned in its stead, and the error was never told.
#[test]
fn an_error_of_the_listener_is_told_even_if_a_topic_was_deleted_at_the_same_time() {
    let broker = broker_with(2);
    broker.create_topic("mails", &TopicConfig::new()).unwrap();
    let told = Told::default();
    let notes = Notes::new(&told).on_revoked(|_, _| Err(Error::NothingToRead));
    let mut first = options(&broker).listener(notes).subscribe(&["orders", "mails"]).unwrap();
    first.poll(Duration::ZERO).unwrap();
    let _second = member(&broker);
    broker.delete_topic("mails").unwrap();
    let records = first.poll(Duration::ZERO).unwrap();
    assert_eq!(records.events(), [Event::TopicDeleted { topic: "mails".into() }]);
    assert!(matches!(first.poll(Duration::ZERO), Err(Error::NothingToRead)), "{:?}", told.take());
    assert!(first.poll(Duration::ZERO).unwrap().is_empty());
}

#[test]
fn an_application_that_keeps_its_offsets_elsewhere_seeks_when_it_is_assigned() {
    let broker = broker_with(2);
    fill(&broker, "orders", 0..10);
    let stored = [7, 3];
    let notes = || {
        Notes::new(&Told::default()).on_assigned(move |member, partitions| {
            for place in partitions {
                let at = stored[usize::try_from(place.partition.get()).unwrap()];
                member.seek(place, SeekTo::Offset(Offset::new(at)))?;
                assert_eq!(member.position(place)?.offset.get(), at);
            }
            Ok(())
        })
    };
    let mut first = options(&broker).listener(notes()).subscribe(&["orders"]).unwrap();
    let mut expected = of("orders-0", 7..10);
    expected.extend(of("orders-1", 3..10));
    assert_eq!(poll(&mut first), expected);
    // Somebody else has it from where that one has stored, whatever is committed.
    first.commit().wait().unwrap();
    let mut second = options(&broker).listener(notes()).subscribe(&["orders"]).unwrap();
    assert_eq!(poll(&mut second), of("orders-1", 3..10));
    assert!(poll(&mut first).is_empty());
    // It went back, so it may commit an earlier offset.
    second.commit().wait().unwrap();
}

// A panic left what was assigned in the same poll owned and unread, and what was to be given up assigned for ever.
#[test]
fn a_listener_that_panics_leaves_a_consumer_that_goes_on() {
    for place in ["assigned", "revoked", "lost"] {
        let broker = broker_with(2);
        fill(&broker, "orders", 0..1);
        let told = Told::default();
        let mut notes = Notes::new(&told);
        notes = match place {
            "assigned" => notes.on_assigned(|_, _| panic!("a listener that fails")),
            "revoked" => notes.on_revoked(|_, _| panic!("a listener that fails")),
            _ => notes.on_lost(|| panic!("a listener that fails")),
        };
        let is_lost = place == "lost";
        let timeout = if is_lost { Duration::from_millis(1) } else { Duration::from_secs(60) };
        let options = options(&broker).revoke_timeout(timeout).listener(notes);
        let mut first = options.subscribe(&["orders"]).unwrap();
        let attempt = |first: &mut Consumer| {
            catch_unwind(AssertUnwindSafe(|| poll(first))).unwrap_or_else(|_| vec!["panic".into()])
        };
        let polled = attempt(&mut first);
        if place == "assigned" {
            assert_eq!(polled, ["panic"]);
            assert_eq!(attempt(&mut first).len(), 2);
        } else {
            assert_eq!(polled.len(), 2);
        }
        let mut second = member(&broker);
        if is_lost {
            std::thread::sleep(Duration::from_millis(5));
            assert_eq!(poll(&mut second), ["orders-1:0"]);
        }
        // There is something new for it as well.
        broker.alter_topic("orders", &TopicConfig::new().partitions(4)).unwrap();
        for _ in 0..3 {
            attempt(&mut first);
            poll(&mut second);
        }
        let all = ["orders-0", "orders-1", "orders-2", "orders-3"];
        assert_eq!(all_places([&first, &second]), all, "{place}");
        let described = broker.describe_group("billing").unwrap();
        for (shown, member) in described.members.iter().zip([&first, &second]) {
            assert_eq!(shown.partitions, member.assignment(), "{place}");
        }
        fill(&broker, "orders", 9..10);
        let mut values = poll(&mut first);
        values.extend(poll(&mut second));
        assert_eq!(values.iter().filter(|value| value.ends_with(":9")).count(), 4, "{place}");
    }
}

#[test]
fn closing_gives_up_all_with_a_last_commit_and_dropping_calls_nothing() {
    let broker = broker_with(2);
    fill(&broker, "orders", 0..2);
    let told = Told::default();
    let notes = || Notes::new(&told).on_revoked(|member, _| member.commit().wait());
    let mut first = options(&broker).listener(notes()).subscribe(&["orders"]).unwrap();
    assert_eq!(poll(&mut first).len(), 4);
    drop(first);
    assert_eq!(told.take(), ["+orders-0", "+orders-1"]);
    let mut first = options(&broker).listener(notes()).subscribe(&["orders"]).unwrap();
    assert_eq!(poll(&mut first).len(), 4);
    first.close().unwrap();
    assert_eq!(told.take(), ["+orders-0", "+orders-1", "-orders-0", "-orders-1"]);
    // Closed before its first poll, it knows of nothing that it could give up.
    options(&broker).listener(notes()).subscribe(&["orders"]).unwrap().close().unwrap();
    assert_eq!(told.take(), [""; 0]);
    assert!(poll(&mut member(&broker)).is_empty());
}

#[test]
fn a_partition_that_comes_and_goes_between_two_polls_is_told_of_to_nobody() {
    let broker = broker_with(2);
    let told = Told::default();
    let mut first = options(&broker).listener(Notes::new(&told)).subscribe(&["orders"]).unwrap();
    for _ in 0..3 {
        drop(member(&broker));
    }
    first.poll(Duration::ZERO).unwrap();
    let news = told.take();
    assert_eq!(news, ["+orders-0", "+orders-1"]);
    for _ in 0..3 {
        drop(member(&broker));
    }
    first.poll(Duration::ZERO).unwrap();
    let news = told.take();
    // It was another's in between, so it is told that it went and came.
    assert_eq!(news, ["-orders-1", "+orders-1"]);
    assert_eq!(places(&first).len(), 2);
}

#[test]
fn a_member_that_sought_goes_on_elsewhere_when_that_partition_goes() {
    let broker = broker_with(2);
    fill(&broker, "orders", 0..4);
    let mut first = member(&broker);
    assert_eq!(poll(&mut first).len(), 8);
    first.commit().wait().unwrap();
    first.seek(&partition("orders", 1), SeekTo::Offset(Offset::new(1))).unwrap();
    let mut second = member(&broker);
    assert!(poll(&mut second).is_empty());
    assert_eq!(places(&second), ["orders-1"], "nothing was returned since");
    assert!(poll(&mut first).is_empty());
    first.commit().wait().unwrap();
    assert!(matches!(first.position(&partition("orders", 1)), Err(Error::NotAssigned { .. })));
}

#[test]
fn a_paused_partition_that_goes_and_comes_back_is_not_paused() {
    let broker = broker_with(2);
    fill(&broker, "orders", 0..1);
    let mut first = member(&broker);
    first.pause(&[partition("orders", 0), partition("orders", 1)]).unwrap();
    assert!(poll(&mut first).is_empty());
    drop(member(&broker));
    assert_eq!(poll(&mut first), ["orders-1:0"]);
    first.resume(&[partition("orders", 0)]).unwrap();
    assert_eq!(poll(&mut first), ["orders-0:0"]);
}

#[test]
fn a_member_that_reads_beyond_what_is_durable_hands_over_all_the_same() {
    let broker = broker_with(1);
    fill(&broker, "orders", 0..1);
    let count = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&count);
    let notes = Notes::new(&Told::default()).on_revoked(move |member, _| {
        seen.fetch_add(1, Ordering::SeqCst);
        member.commit().wait()
    });
    let mut named = options(&broker).member_name("b").listener(notes).subscribe(&["orders"]).unwrap();
    assert_eq!(read(&named.poll(Duration::ZERO).unwrap()), ["orders-0:0"]);
    // One partition, two members: who has it keeps it, whatever the names are.
    let mut other = options(&broker).member_name("a").reset(Reset::Latest).subscribe(&["orders"]).unwrap();
    assert!(poll(&mut other).is_empty() && poll(&mut named).is_empty());
    assert_eq!(count.load(Ordering::SeqCst), 0);
    named.close().unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 1);
    eventually("the other has it", || {
        other.poll(Duration::ZERO).unwrap();
        places(&other) == ["orders-0"]
    });
}
