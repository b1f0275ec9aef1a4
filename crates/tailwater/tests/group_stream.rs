//! Members of a group as streams: polled by hand, woken by what happens in the group.

#![cfg(feature = "async")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use common::members::{Notes, Told, all_places, fill, of, places, poll, read};
use common::reading::broker_with;
use common::{DATA, eventually, open, open_with_threads};
use futures_core::Stream;
use tailwater::storage::SimDisk;
use tailwater::{AutoCommit, Broker, Consumer, Error, Records, Result, TopicConfig};

#[derive(Default)]
struct Wakes(AtomicU32);

impl Wakes {
    fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll_once(consumer: &mut Consumer, waker: &Waker) -> Poll<Option<Result<Records>>> {
    Pin::new(consumer).poll_next(&mut Context::from_waker(waker))
}

/// The next item, which must be there.
fn next(consumer: &mut Consumer, waker: &Waker) -> Result<Records> {
    match poll_once(consumer, waker) {
        Poll::Ready(Some(item)) => item,
        other => panic!("{other:?}"),
    }
}

fn waker() -> (Arc<Wakes>, Waker) {
    let wakes = Arc::new(Wakes::default());
    (Arc::clone(&wakes), Waker::from(wakes))
}

fn member(broker: &Broker) -> Consumer {
    broker.consumer("billing").subscribe(&["orders"]).unwrap()
}

#[test]
fn a_member_is_woken_by_a_rebalance_and_sleeps_otherwise() {
    let broker = broker_with(2);
    let (wakes, waker) = waker();
    let mut first = member(&broker);
    assert!(poll_once(&mut first, &waker).is_pending());
    let second = member(&broker);
    assert_eq!(wakes.count(), 1, "half of it went");
    assert!(poll_once(&mut first, &waker).is_pending());
    assert_eq!(places(&first).len(), 1);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(wakes.count(), 1);
    fill(&broker, "orders", 0..1);
    eventually("it is woken", || wakes.count() >= 2);
    assert_eq!(next(&mut first, &waker).unwrap().count(), 1);
    assert!(poll_once(&mut first, &waker).is_pending());
    let before = wakes.count();
    drop(second);
    assert_eq!(wakes.count(), before + 1);
    assert_eq!(next(&mut first, &waker).unwrap().count(), 1);
    assert_eq!(places(&first).len(), 2);
}

#[test]
fn a_member_is_woken_by_the_deadline_of_a_stuck_one_with_nobody_else_about() {
    for is_evicted in [false, true] {
        let broker = broker_with(2);
        fill(&broker, "orders", 0..1);
        let limit = Duration::from_millis(150);
        let options = broker.consumer("billing");
        let options =
            if is_evicted { options.max_poll_interval(limit) } else { options.revoke_timeout(limit) };
        let mut stuck = options.subscribe(&["orders"]).unwrap();
        assert_eq!(poll(&mut stuck).len(), 2);
        let (wakes, waker) = waker();
        let mut second = member(&broker);
        assert!(poll_once(&mut second, &waker).is_pending());
        eventually("it is woken by the alarm", || wakes.count() == 1);
        let count = if is_evicted { 2 } else { 1 };
        assert_eq!(next(&mut second, &waker).unwrap().count(), count);
        assert_eq!(places(&second).len(), count);
    }
}

// A first look found the error, and a second one, with the signal armed, did not: it was told to nobody.
#[test]
fn an_error_that_is_told_once_is_an_item_of_the_stream() {
    let broker = broker_with(2);
    fill(&broker, "orders", 0..1);
    let (_, waker) = waker();
    let notes = Notes::new(&Told::default()).on_assigned(|_, _| Err(Error::NothingToRead));
    let options = broker.consumer("billing").auto_commit(AutoCommit::OnNextPoll).listener(notes);
    let mut slow = options.revoke_timeout(Duration::from_millis(1)).subscribe(&["orders"]).unwrap();
    assert!(matches!(next(&mut slow, &waker), Err(Error::NothingToRead)));
    assert_eq!(next(&mut slow, &waker).unwrap().count(), 2);

    let mut second = member(&broker);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(poll(&mut second).len(), 1);
    let fenced = next(&mut slow, &waker);
    assert!(matches!(fenced, Err(Error::FencedMemberEpoch { .. })), "{fenced:?}");
    for _ in 0..3 {
        assert!(poll_once(&mut slow, &waker).is_pending(), "told once");
    }
    fill(&broker, "orders", 1..2);
    assert_eq!(next(&mut slow, &waker).unwrap().count(), 1);
}

/// Four partitions with two records each: those of `orders-1` are damaged.
fn damaged() -> Broker {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    broker.create_topic("orders", &TopicConfig::new().partitions(4)).unwrap();
    fill(&broker, "orders", 0..2);
    broker.close().unwrap();
    let path = std::path::Path::new(DATA).join("orders-1/00000000000000000000.log");
    let bytes = disk.read_file(&path).unwrap();
    let at = bytes.windows(10).position(|window| window == b"orders-1:0").unwrap();
    disk.flip_bit(&path, at as u64 * 8 + 1).unwrap();
    open_with_threads(&disk).unwrap()
}

// Having been told of damage, the member waited without anybody knowing. One with a limit was evicted while it waited.
#[test]
fn a_member_that_was_told_of_damage_is_not_evicted_while_it_waits() {
    let broker = damaged();
    let (_, waker) = waker();
    let limit = Duration::from_millis(150);
    let options = broker.consumer("billing").max_poll_interval(limit);
    let mut waits = options.subscribe(&["orders"]).unwrap();
    assert_eq!(next(&mut waits, &waker).unwrap().count(), 6);
    waits.commit().wait().unwrap();
    assert!(matches!(next(&mut waits, &waker), Err(Error::Corrupt(_))));
    assert!(poll_once(&mut waits, &waker).is_pending());
    std::thread::sleep(limit * 2);
    // Whoever comes looks at the time.
    let second = member(&broker);
    assert_eq!(places(&second).len(), 2);
    assert!(broker.describe_group("billing").unwrap().members.iter().all(|member| !member.is_evicted));

    // It is, if it does something else when it was told.
    while let Poll::Ready(item) = poll_once(&mut waits, &waker) {
        assert!(matches!(item, Some(Err(Error::Corrupt(_)))));
    }
    drop(second);
    assert!(matches!(next(&mut waits, &waker), Err(Error::Corrupt(_))));
    std::thread::sleep(limit * 2);
    assert_eq!(places(&member(&broker)).len(), 4);
}

// As above: what a stuck member held came to it only when something else happened.
#[test]
fn a_member_that_was_told_of_damage_takes_over_from_a_stuck_one() {
    let broker = damaged();
    let (wakes, waker) = waker();
    let limit = Duration::from_millis(150);
    let mut stuck = broker.consumer("billing").revoke_timeout(limit).subscribe(&["orders"]).unwrap();
    assert_eq!(poll(&mut stuck).len(), 6);
    let mut second = member(&broker);
    assert_eq!(places(&second), ["orders-1"], "of which the stuck one was returned nothing");
    assert!(matches!(next(&mut second, &waker), Err(Error::Corrupt(_))));
    assert!(poll_once(&mut second, &waker).is_pending());
    eventually("it is woken by the alarm", || wakes.count() > 0);
    assert_eq!(read(&next(&mut second, &waker).unwrap()), of("orders-3", 0..2));
}

/// Runs something once when it is woken.
struct Does(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for Does {
    fn wake(self: Arc<Self>) {
        let act = self.0.lock().unwrap().take();
        if let Some(act) = act {
            act();
        }
    }
}

// It was taken for gone while its deletion was under way: once that had failed it was owned, and read by nobody.
#[test]
fn a_partition_that_is_assigned_during_a_deletion_that_fails_is_read() {
    let mut taken_back = 0;
    for nth in 1..=12 {
        let disk = SimDisk::new(1);
        let broker = open(&disk).unwrap();
        broker.create_topic("orders", &TopicConfig::new().partitions(2)).unwrap();
        let (first, mut second) = (member(&broker), member(&broker));
        let first = Arc::new(Mutex::new(first));
        assert_eq!(first.lock().unwrap().poll(Duration::ZERO).unwrap().count(), 0);
        // The second is woken when a log is closed: it leaves, and the first gets what it had.
        let leaving = Arc::new(Mutex::new(None));
        let (taking, slot) = (Arc::clone(&first), Arc::clone(&leaving));
        let does = Does(Mutex::new(Some(Box::new(move || {
            drop(slot.lock().unwrap().take());
            taking.lock().unwrap().poll(Duration::ZERO).unwrap();
        }))));
        assert!(poll_once(&mut second, &Waker::from(Arc::new(does))).is_pending());
        *leaving.lock().unwrap() = Some(second);
        disk.fail_nth(nth, 5, false);
        let outcome = broker.delete_topic("orders");
        disk.clear_faults();
        if outcome.is_ok() || broker.describe_topic("orders").is_err() {
            continue;
        }
        taken_back += 1;
        let mut first = first.lock().unwrap();
        assert!(leaving.lock().unwrap().is_none(), "it was woken");
        fill(&broker, "orders", 0..1);
        let mut values = poll(&mut first);
        values.extend(poll(&mut first));
        values.sort();
        assert_eq!(values, ["orders-0:0", "orders-1:0"], "{nth}");
        assert_eq!(all_places([&*first]), ["orders-0", "orders-1"]);
    }
    assert!(taken_back > 0);
}
