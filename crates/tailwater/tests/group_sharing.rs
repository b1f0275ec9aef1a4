//! Several members share a group: who has which partitions as they come and go, and who may join.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use common::members::{Notes, Told, all_places, fill, of, places, poll, read};
use common::reading::{broker_with, drain};
use common::{open, partition};
use tailwater::storage::SimDisk;
use tailwater::{Assignor, Broker, Consumer, Error, SeekTo, TopicConfig};

fn member(broker: &Broker) -> Consumer {
    broker.consumer("billing").subscribe(&["orders"]).unwrap()
}

fn places_of(topic: &str, count: u32) -> Vec<String> {
    let mut places: Vec<_> = (0..count).map(|number| format!("{topic}-{number}")).collect();
    places.sort();
    places
}

/// Has all members poll until nothing moves any more, and sees to it that each partition is read by one of them.
fn settle(members: &mut [&mut Consumer], count: u32) {
    for _ in 0..3 {
        members.iter_mut().for_each(|member| drop(member.poll(Duration::ZERO).unwrap()));
    }
    assert_eq!(all_places(members.iter().map(|member| &**member)), places_of("orders", count));
}

#[test]
fn members_split_the_partitions_and_only_the_fewest_move() {
    let broker = broker_with(12);
    let mut first = member(&broker);
    assert_eq!(places(&first).len(), 12);
    let mut second = member(&broker);
    settle(&mut [&mut first, &mut second], 12);
    assert_eq!((places(&first).len(), places(&second).len()), (6, 6));
    let (had_first, had_second) = (places(&first), places(&second));
    let mut third = member(&broker);
    settle(&mut [&mut first, &mut second, &mut third], 12);
    let is_kept = |now: &Consumer, before: &[String]| places(now).iter().all(|place| before.contains(place));
    assert_eq!([places(&first).len(), places(&second).len(), places(&third).len()], [4, 4, 4]);
    assert!(is_kept(&first, &had_first) && is_kept(&second, &had_second), "who stays is given nothing new");
    let (had_first, had_second) = (places(&first), places(&second));
    drop(third);
    settle(&mut [&mut first, &mut second], 12);
    assert!(had_first.iter().all(|place| places(&first).contains(place)), "who stays keeps what it has");
    assert!(had_second.iter().all(|place| places(&second).contains(place)));
    assert_eq!((places(&first).len(), places(&second).len()), (6, 6));
}

#[test]
fn whoever_stays_reads_on_while_others_come_and_go_in_every_way() {
    let broker = broker_with(6);
    fill(&broker, "orders", 0..1);
    let told = Told::default();
    let options = broker.consumer("billing").listener(Notes::new(&told));
    let mut stays = options.subscribe(&["orders"]).unwrap();
    let mut seen: Vec<_> = poll(&mut stays);
    stays.commit().wait().unwrap();
    assert_eq!(told.take().len(), 6);
    for (round, way) in (1..).zip(["drop", "close", "panic", "unpolled", "closed unpolled"]) {
        let mut other = member(&broker);
        if !way.ends_with("unpolled") {
            other.poll(Duration::ZERO).unwrap();
        }
        fill(&broker, "orders", round..round + 1);
        seen.extend(poll(&mut stays));
        let kept = places(&stays);
        assert_eq!((kept.len(), told.take().len()), (3, 3), "{way}");
        stays.commit().wait().unwrap();
        // What it does not commit is read again.
        if !way.ends_with("unpolled") {
            assert_eq!(poll(&mut other).len(), 3, "{way}");
        }
        match way {
            "drop" | "unpolled" => drop(other),
            "panic" => {
                let panicked = catch_unwind(AssertUnwindSafe(move || {
                    let _other = other;
                    panic!("a handler that fails");
                }));
                assert!(panicked.is_err());
            }
            _ => other.close().unwrap(),
        }
        seen.extend(poll(&mut stays));
        let news = told.take();
        assert_eq!(news.len(), 3, "{way}: {news:?}");
        assert!(news.iter().all(|news| news.starts_with('+') && !kept.contains(&news[1..].into())), "{way}");
        stays.commit().wait().unwrap();
    }
    seen.sort();
    let mut all: Vec<_> = places_of("orders", 6).iter().flat_map(|place| of(place, 0..6)).collect();
    all.sort();
    assert_eq!(seen, all, "each record once, since all was committed");
}

#[test]
fn nobody_is_returned_a_record_of_a_partition_that_another_has() {
    let broker = broker_with(8);
    let mut members: Vec<Option<Consumer>> = (0..4).map(|_| None).collect();
    let mut choices = common::Choices(0x5EED_1234_ABCD);
    for round in 0..300 {
        fill(&broker, "orders", round..round + 1);
        let index = usize::try_from(choices.next() % 4).unwrap();
        match (choices.next() % 8, &mut members[index]) {
            (0, here) if here.is_some() => *here = None,
            (_, here @ None) => *here = Some(member(&broker)),
            (roll, Some(here)) => {
                let records = here.poll(Duration::ZERO).unwrap();
                let from: BTreeSet<_> = records.iter().map(|r| r.topic_partition().clone()).collect();
                let described = broker.describe_group("billing").unwrap();
                let owners = |place| {
                    described.members.iter().filter(|member| member.partitions.contains(place)).count()
                };
                let has = here.assignment();
                for place in &from {
                    assert_eq!(owners(place), 1, "{place} in round {round}");
                    assert!(has.contains(place));
                }
                if roll > 3 {
                    here.commit().wait().unwrap();
                }
            }
        }
    }
    members.into_iter().for_each(drop);
    let mut last = member(&broker);
    let mut left = drain(&mut last);
    left.sort();
    last.commit().wait().unwrap();
    drop(last);
    assert!(poll(&mut member(&broker)).is_empty());
    // Whatever was left is the end of each partition, without a hole.
    for place in places_of("orders", 8) {
        let numbers: BTreeSet<u32> =
            left.iter().filter_map(|value| value.strip_prefix(&format!("{place}:"))?.parse().ok()).collect();
        assert!(numbers.iter().zip(numbers.iter().skip(1)).all(|(a, b)| a + 1 == *b), "{place}");
        assert!(numbers.last().is_none_or(|last| *last == 299));
    }
}

#[test]
fn names_give_the_same_partitions_after_a_restart() {
    let disk = SimDisk::new(1);
    let names = ["c", "a", "d", "b"];
    let orders = [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]];
    // Who keeps what he has is given it by those who came before; `Range` looks at the names alone.
    let same_order = [Assignor::Uniform; 3].map(|assignor| (assignor, orders[0])).into_iter();
    let any_order = orders.map(|order| (Assignor::Range, order)).into_iter();
    let mut found = std::collections::BTreeMap::new();
    for (assignor, order) in same_order.chain(any_order) {
        let broker = open(&disk).unwrap();
        drop(broker.create_topic("orders", &TopicConfig::new().partitions(10)));
        let member = |name: &str| {
            let options = broker.consumer("billing").member_name(name).assignor(assignor);
            options.subscribe(&["orders"]).unwrap()
        };
        let mut members: Vec<_> = order.iter().map(|at| (names[*at], member(names[*at]))).collect();
        for _ in 0..2 {
            members.iter_mut().for_each(|(_, member)| drop(member.poll(Duration::ZERO).unwrap()));
        }
        members.sort_by_key(|(name, _)| *name);
        let now: Vec<_> = members.iter().map(|(name, member)| (*name, places(member))).collect();
        let before = found.entry(assignor.to_string()).or_insert_with(|| now.clone());
        assert_eq!(*before, now, "{assignor}");
        let described = broker.describe_group("billing").unwrap();
        assert_eq!(described.members.len(), 4);
        for (name, member) in &members {
            let shown = described.members.iter().find(|shown| shown.name.as_deref() == Some(*name)).unwrap();
            assert_eq!(shown.partitions, member.assignment());
            assert_eq!(shown.target, member.assignment());
            assert!(!shown.is_evicted && shown.epoch > 0);
        }
        drop(members);
        broker.close().unwrap();
    }
    assert_eq!(found.len(), 2);
}

#[test]
fn a_member_that_does_not_fit_the_group_is_refused_and_disturbs_nobody() {
    let broker = broker_with(4);
    let named = |name: &str| broker.consumer("billing").member_name(name.to_owned());
    let mut first = named("one").subscribe(&["orders"]).unwrap();
    fill(&broker, "orders", 0..1);
    assert_eq!(poll(&mut first).len(), 4);
    let orders = [partition("orders", 0)];
    let error = named("one").subscribe(&["orders"]).unwrap_err();
    assert!(matches!(&error, Error::DuplicateMemberName { name, .. } if &**name == "one"), "{error}");
    let error = named("two").assignor(Assignor::Range).subscribe(&["orders"]).unwrap_err();
    assert!(matches!(error, Error::AssignorMismatch { assignor: Assignor::Uniform, .. }), "{error}");
    let error = named("two").ephemeral().subscribe(&["orders"]).unwrap_err();
    assert!(matches!(error, Error::GroupLifetimeMismatch { .. }), "{error}");
    let error = named("two").assign(&orders).unwrap_err();
    assert!(matches!(error, Error::GroupInUse { .. }), "{error}");
    let error = named("two").subscribe(&["payments"]).unwrap_err();
    assert!(matches!(error, Error::UnknownTopic { .. }), "{error}");
    assert!(matches!(broker.delete_group("billing"), Err(Error::GroupNotEmpty { .. })));
    let reset = broker.reset_group("billing", &orders, SeekTo::Earliest);
    assert!(matches!(reset, Err(Error::GroupNotEmpty { .. })), "{reset:?}");
    assert_eq!(places(&first), places_of("orders", 4));
    first.commit().wait().unwrap();
    assert!(poll(&mut first).is_empty());
    // The name is free again.
    drop(first);
    let mut again = named("one").assignor(Assignor::Range).subscribe(&["orders"]).unwrap();
    assert!(poll(&mut again).is_empty());
    drop(again);
    broker.delete_group("billing").unwrap();

    // And the other way round.
    let alone = broker.consumer("billing").assign(&orders).unwrap();
    assert!(matches!(named("x").subscribe(&["orders"]), Err(Error::GroupInUse { .. })));
    assert!(matches!(named("x").assign(&orders), Err(Error::GroupInUse { .. })));
    let described = broker.describe_group("billing").unwrap();
    assert_eq!((described.members.len(), described.members[0].partitions.len()), (1, 0));
    drop(alone);
    assert_eq!(places(&named("x").subscribe(&["orders"]).unwrap()).len(), 4);
}

#[test]
fn an_ephemeral_group_is_shared_and_is_gone_with_its_last_member() {
    let broker = broker_with(2);
    fill(&broker, "orders", 0..2);
    let member = || broker.consumer("watching").ephemeral().subscribe(&["orders"]).unwrap();
    let (mut first, mut second) = (member(), member());
    assert_eq!(poll(&mut first).len() + poll(&mut second).len(), 4);
    first.commit().wait().unwrap();
    second.commit().wait().unwrap();
    fill(&broker, "orders", 2..3);
    let gone = places(&second)[0].clone();
    drop(second);
    let mut values = poll(&mut first);
    values.sort();
    assert_eq!(values, ["orders-0:2", "orders-1:2"], "it goes on behind what {gone} was committed to");
    let described = broker.describe_group("watching").unwrap();
    assert_eq!((described.members.len(), described.positions.len()), (1, 2));
    assert!(matches!(
        broker.delete_group("watching"),
        Err(Error::GroupNotEmpty { .. } | Error::UnknownGroup { .. })
    ));
    let lasting = broker.consumer("watching").subscribe(&["orders"]);
    assert!(matches!(lasting, Err(Error::GroupLifetimeMismatch { .. })));
    first.close().unwrap();
    assert!(matches!(broker.describe_group("watching"), Err(Error::UnknownGroup { .. })));
    assert_eq!(poll(&mut member()).len(), 6, "it starts anew");
}

#[test]
fn members_of_one_group_may_read_different_topics() {
    let broker = broker_with(2);
    broker.create_topic("mails", &TopicConfig::new().partitions(2)).unwrap();
    fill(&broker, "orders", 0..1);
    fill(&broker, "mails", 0..1);
    let subscribe = |topics: &[&str]| broker.consumer("billing").subscribe(topics).unwrap();
    let mut orders = subscribe(&["orders"]);
    let mut mails = subscribe(&["mails"]);
    assert_eq!(poll(&mut orders), ["orders-0:0", "orders-1:0"]);
    assert_eq!(poll(&mut mails), ["mails-0:0", "mails-1:0"]);
    orders.commit().wait().unwrap();
    mails.commit().wait().unwrap();
    let mut both = subscribe(&["orders", "mails"]);
    for member in [&mut orders, &mut mails, &mut both] {
        assert!(member.poll(Duration::ZERO).unwrap().is_empty());
    }
    let all = ["mails-0", "mails-1", "orders-0", "orders-1"];
    assert_eq!(all_places([&orders, &mails, &both]), all);
    drop(mails);
    for member in [&mut orders, &mut both] {
        assert!(member.poll(Duration::ZERO).unwrap().is_empty());
    }
    assert_eq!(all_places([&orders, &both]), all);
    drop(both);
    assert!(poll(&mut orders).is_empty());
    // Nobody reads the mails now; whoever comes goes on where the group was.
    assert_eq!(places(&orders), ["orders-0", "orders-1"]);
    fill(&broker, "mails", 1..2);
    assert_eq!(read(&subscribe(&["mails"]).poll(Duration::ZERO).unwrap()), ["mails-0:1", "mails-1:1"]);
}
