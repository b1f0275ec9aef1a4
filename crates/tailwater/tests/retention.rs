//! Retention of topics: what groups hold, what happens at a limit, and what a power cut leaves of it.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Choices, DATA, eventually, open, partition};
use tailwater::storage::SimDisk;
use tailwater::{
    Broker, BrokerOptions, Consumer, Error, Event, Hold, Maintenance, ManualClock, OnFull, PartitionStats,
    Reset, Result, SpaceScope, Timestamp, TopicConfig, TopicFull,
};

/// Segments of 4 KiB, so that a few records fill one.
fn small() -> TopicConfig {
    TopicConfig::new().segment_bytes(4096)
}

fn create(broker: &Broker, config: &TopicConfig) {
    broker.create_topic("orders", config).unwrap();
}

fn publish(broker: &Broker, count: u64) -> Result<()> {
    let orders = broker.producer("orders")?;
    let value = [b'v'; 500];
    (0..count).try_for_each(|_| orders.publish(&value[..]).map(drop))
}

/// Publishes until a limit is met. Returns how many were published, and what the error says.
fn publish_until_full(broker: &Broker) -> (u64, TopicFull) {
    for count in 0..10_000 {
        match publish(broker, 1) {
            Ok(()) => {}
            Err(Error::TopicFull(full)) => return (count, *full),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("there is no limit");
}

fn maintain(broker: &Broker) {
    while broker.run_maintenance_once().unwrap().did_work {}
}

fn start(broker: &Broker) -> u64 {
    broker.embedded().unwrap().stats(&partition("orders", 0)).unwrap().log_start_offset.get()
}

fn stats(broker: &Broker) -> PartitionStats {
    broker.stats().topic("orders").unwrap().partitions[0].clone()
}

fn group(broker: &Broker, id: &str) -> Consumer {
    broker.consumer(id).subscribe(&["orders"]).unwrap()
}

/// Reads to the end and commits, durably. Returns how many records there were.
fn catch_up(consumer: &mut Consumer) -> u64 {
    let mut count = 0;
    loop {
        let records = consumer.poll(Duration::ZERO).unwrap();
        if records.is_empty() && records.events().is_empty() {
            consumer.commit().wait().unwrap();
            return count;
        }
        count += records.iter().count() as u64;
    }
}

#[test]
fn what_a_group_has_not_committed_is_held_and_the_group_is_named() {
    let broker = open(&SimDisk::new(1)).unwrap();
    create(&broker, &small().retention_bytes(8_000));
    let mut billing = group(&broker, "billing");
    catch_up(&mut billing);
    publish(&broker, 40).unwrap();
    maintain(&broker);
    assert_eq!(start(&broker), 0, "all of it is held");
    let open = stats(&broker).open.unwrap();
    let holder = open.retention.holder.unwrap();
    assert_eq!((&*holder.group, holder.offset.get(), holder.lag), ("billing", 0, 40));
    assert!(holder.committed_at.is_some());
    assert!(open.retention.held_bytes > 10_000, "{}", open.retention.held_bytes);

    // A second group that is less far does not free what the first holds, nor the reverse.
    let mut shipping = broker.consumer("shipping").reset(Reset::Latest).subscribe(&["orders"]).unwrap();
    catch_up(&mut shipping);
    maintain(&broker);
    assert_eq!(start(&broker), 0);
    assert_eq!(catch_up(&mut billing), 40);
    maintain(&broker);
    assert!(start(&broker) > 20, "{}", start(&broker));
    let retention = stats(&broker).open.unwrap().retention;
    assert_eq!((retention.held_bytes, retention.holder), (0, None));
}

#[test]
fn groups_that_are_not_named_hold_nothing_and_are_told_of_the_gap() {
    for (hold, is_held) in [
        (Hold::AllGroups, true),
        (Hold::Groups(vec!["billing".to_owned()]), true),
        (Hold::Groups(vec!["others".to_owned()]), false),
        (Hold::None, false),
    ] {
        let broker = open(&SimDisk::new(1)).unwrap();
        create(&broker, &small().retention_bytes(0).hold(hold.clone()));
        let mut billing = group(&broker, "billing");
        catch_up(&mut billing);
        publish(&broker, 40).unwrap();
        maintain(&broker);
        assert_eq!(start(&broker) == 0, is_held, "{hold}");
        let records = billing.poll(Duration::ZERO).unwrap();
        let gaps: Vec<_> = records.events().to_vec();
        if is_held {
            assert_eq!(gaps, []);
        } else {
            let [Event::Gap { from, to, .. }] = &gaps[..] else { panic!("{gaps:?}") };
            assert_eq!((from.get(), to.get()), (0, start(&broker)));
            assert_eq!(records.iter().next().unwrap().offset(), *to);
        }
    }
}

/// A group whose position was taken back with the records before it goes on where the histories part, and what came there
/// since is held for it, though its offset is higher.
#[test]
fn what_took_the_place_of_truncated_records_is_held() {
    let broker = open(&SimDisk::new(1)).unwrap();
    create(&broker, &small().retention_bytes(0));
    let mut billing = group(&broker, "billing");
    publish(&broker, 60).unwrap();
    assert_eq!(catch_up(&mut billing), 60);
    let at = partition("orders", 0);
    broker.embedded().unwrap().truncate_to(&at, tailwater::Offset::new(20)).unwrap();
    publish(&broker, 60).unwrap();
    maintain(&broker);
    assert!(start(&broker) <= 20, "records from {} on are left, and the group goes on at 20", start(&broker));
    let mut read = 0;
    loop {
        let records = billing.poll(Duration::ZERO).unwrap();
        assert!(!records.events().iter().any(|event| matches!(event, Event::Gap { .. })));
        if records.is_empty() && records.events().is_empty() {
            break;
        }
        read += records.iter().count();
    }
    assert_eq!(read, 60);
}

#[test]
fn ephemeral_groups_and_deleted_ones_hold_nothing() {
    let broker = open(&SimDisk::new(1)).unwrap();
    create(&broker, &small().retention_bytes(0));
    let mut passing = broker.consumer("passing").ephemeral().subscribe(&["orders"]).unwrap();
    catch_up(&mut passing);
    let mut billing = group(&broker, "billing");
    catch_up(&mut billing);
    publish(&broker, 40).unwrap();
    maintain(&broker);
    assert_eq!(start(&broker), 0);
    billing.close().unwrap();
    broker.delete_group("billing").unwrap();
    maintain(&broker);
    assert!(start(&broker) > 20);
}

#[test]
fn a_full_topic_refuses_records_names_the_group_and_takes_them_again_when_it_has_read() {
    let broker = open(&SimDisk::new(1)).unwrap();
    create(&broker, &TopicConfig::new().retention_hard_bytes(64 * 1024));
    let mut billing = group(&broker, "billing");
    catch_up(&mut billing);
    let (count, full) = publish_until_full(&broker);
    assert!(count > 80, "{count}");
    assert_eq!((full.full.scope, full.full.limit_bytes), (SpaceScope::Partition, 64 * 1024));
    assert_eq!(full.partition.as_deref(), Some(&partition("orders", 0)));
    let holder = full.holder.clone().unwrap();
    assert_eq!((&*holder.group, holder.offset.get(), holder.lag), ("billing", 0, count));
    let message = full.to_string();
    assert!(message.starts_with("orders-0 is full: "), "{message}");
    assert!(message.contains("group billing holds the records from offset 0 on"), "{message}");
    assert!(Error::TopicFull(Box::new(full)).is_retriable());
    assert_eq!(start(&broker), 0);

    assert_eq!(catch_up(&mut billing), count);
    publish(&broker, 50).unwrap();
    assert!(start(&broker) > 0);
    assert_eq!(catch_up(&mut billing), 50, "nothing that it has not read was deleted");
}

#[test]
fn without_a_group_a_full_topic_keeps_what_it_has() {
    let broker = open(&SimDisk::new(1)).unwrap();
    create(&broker, &TopicConfig::new().retention_hard_bytes(64 * 1024));
    let (_, full) = publish_until_full(&broker);
    assert_eq!(full.holder, None);
    assert!(full.to_string().ends_with("delete records, or raise the limit"), "{full}");
    assert_eq!(start(&broker), 0);
    // It can be raised while it is in use.
    broker.alter_topic("orders", &TopicConfig::new().retention_hard_bytes(128 * 1024)).unwrap();
    publish(&broker, 50).unwrap();
    let none = TopicConfig::new().set("retention_hard_bytes", "none").unwrap();
    broker.alter_topic("orders", &none).unwrap();
    publish(&broker, 500).unwrap();
    assert_eq!(start(&broker), 0);
}

#[test]
fn where_the_oldest_may_be_dropped_publishing_goes_on_for_ever() {
    let disk = SimDisk::new(1);
    let broker = open(&disk).unwrap();
    create(&broker, &TopicConfig::new().retention_hard_bytes(64 * 1024).on_full(OnFull::DropOldest));
    let mut billing = group(&broker, "billing");
    catch_up(&mut billing);
    publish(&broker, 1_000).unwrap();
    let records = billing.poll(Duration::ZERO).unwrap();
    let [Event::Gap { from, to, .. }] = records.events() else { panic!("{:?}", records.events()) };
    assert_eq!((from.get(), to.get()), (0, start(&broker)));
    let left = 1_000 - start(&broker);
    assert!(left > 50, "{left}");
    assert_eq!(records.iter().count() as u64 + catch_up(&mut billing), left);
    let size = stats(&broker).log().unwrap().size_bytes;
    assert!(size <= 64 * 1024, "{size}");
}

#[test]
fn settings_take_effect_while_the_topic_is_used() {
    let broker = open(&SimDisk::new(1)).unwrap();
    create(&broker, &small());
    publish(&broker, 40).unwrap();
    maintain(&broker);
    assert_eq!(start(&broker), 0, "nothing is deleted unless configured");
    broker.alter_topic("orders", &TopicConfig::new().retention_bytes(8_000)).unwrap();
    maintain(&broker);
    let kept_from = start(&broker);
    assert!(kept_from > 20);
    broker.alter_topic("orders", &TopicConfig::new().set("retention.bytes", "-1").unwrap()).unwrap();
    publish(&broker, 40).unwrap();
    maintain(&broker);
    assert_eq!(start(&broker), kept_from);
    let refused = broker.alter_topic("orders", &TopicConfig::new().retention_hard_bytes(17)).unwrap_err();
    assert!(
        refused.to_string().starts_with("retention_hard_bytes is 17; it must be from 65536 to"),
        "{refused}"
    );
}

#[test]
fn old_records_go_from_partitions_that_nobody_uses() {
    let disk = SimDisk::new(1);
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
    let options = BrokerOptions::new().maintenance(Maintenance::Manual).clock(clock.clone());
    let open = || options.open_on(Arc::new(disk.clone()), DATA).unwrap();
    let broker = open();
    create(&broker, &TopicConfig::new().partitions(3).retention_ms(60_000));
    publish(&broker, 40).unwrap();
    broker.close().unwrap();
    clock.advance_ms(120_000);
    let broker = open();
    assert_eq!(broker.stats().open_partitions, 0);
    maintain(&broker);
    assert_eq!(broker.stats().open_partitions, 4, "retention opens them, and asks the groups");
    let kept: u64 = (0..3)
        .map(|number| {
            let stats = broker.embedded().unwrap().stats(&partition("orders", number)).unwrap();
            stats.log_end_offset.since(stats.log_start_offset)
        })
        .sum();
    assert_eq!(kept, 0);
}

#[test]
fn the_background_deletes_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::open(directory.path()).unwrap();
    create(&broker, &small().retention_ms(1_000));
    publish(&broker, 40).unwrap();
    eventually("the records are deleted", || start(&broker) == 40);
    eventually("their files are removed", || {
        let removals = stats(&broker).log().unwrap().removals;
        removals.waiting_segments == 0 && removals.removed_segments >= 5
    });
}

#[test]
fn a_limit_of_the_directory_keeps_room_for_commits() {
    let disk = SimDisk::new(1);
    let options = BrokerOptions::new().maintenance(Maintenance::Manual).max_disk_bytes(2 * 1024 * 1024);
    let open = || options.open_on(Arc::new(disk.clone()), DATA).unwrap();
    let broker = open();
    create(&broker, &TopicConfig::new().segment_bytes(64 * 1024));
    broker.create_topic("others", &TopicConfig::new()).unwrap();
    let mut billing = group(&broker, "billing");
    catch_up(&mut billing);
    let (count, full) = publish_until_full(&broker);
    assert!(count > 1_000, "{count}");
    assert_eq!(full.full.scope, SpaceScope::Budget);
    assert!(full.to_string().starts_with("no room for orders-0, the data directory is full: "), "{full}");
    let broker_stats = broker.stats();
    let (used, limit) = (broker_stats.disk_used_bytes.unwrap(), broker_stats.disk_limit_bytes.unwrap());
    assert!(used <= limit && limit == 2 * 1024 * 1024, "{used} of {limit}");
    assert!(matches!(
        broker.producer("others").unwrap().publish(&[0; 100_000][..]),
        Err(Error::TopicFull(_))
    ));
    // The group goes on, and what it has read makes room.
    assert_eq!(catch_up(&mut billing), count);
    publish(&broker, 100).unwrap();
    assert!(start(&broker) > 0);
    billing.close().unwrap();
    broker.close().unwrap();
    // Opened again it knows what is in use, also by what is not open.
    let broker = open();
    let after = broker.stats().disk_used_bytes.unwrap();
    assert!(after > 1024 * 1024 && after <= limit, "{after}");
    broker.delete_topic("orders").unwrap();
    assert!(broker.stats().disk_used_bytes.unwrap() < 1024 * 1024 + 200_000);
    let refused = BrokerOptions::new().max_disk_bytes(17).in_memory().unwrap_err();
    assert!(refused.to_string().starts_with("max_disk_bytes is 17; it must be from 1048576 to"), "{refused}");
}

/// What a group has not committed durably is there after a power cut at any operation, however its commits and retention
/// follow each other.
#[test]
fn a_power_cut_leaves_every_group_where_it_can_go_on() {
    let run = |disk: &SimDisk, seed: u64| -> Result<()> {
        let mut choices = Choices(seed);
        let broker = open(disk)?;
        // In the background, or when a publisher finds no room, just after a commit that nobody waits for.
        let (config, length) = match seed % 2 {
            0 => (small().retention_bytes(4_000), 500),
            _ => (TopicConfig::new().retention_hard_bytes(64 * 1024), 5_000),
        };
        match broker.create_topic("orders", &config) {
            Err(Error::TopicExists { .. }) => {}
            created => created?,
        }
        let orders = broker.producer("orders")?;
        let value = vec![b'v'; length];
        let mut billing = broker.consumer("billing").subscribe(&["orders"])?;
        for _ in 0..30 {
            match choices.next() % 6 {
                0 | 1 => match (0..3).try_for_each(|_| orders.publish(&value[..]).map(drop)) {
                    Err(Error::TopicFull(_)) => {}
                    published => published?,
                },
                2 => drop(billing.poll(Duration::ZERO)?),
                // Not waited for: it may be lost, and then what it has passed is still wanted.
                3 => drop(billing.commit()),
                4 => billing.commit().wait()?,
                _ => drop(broker.run_maintenance_once()?),
            }
        }
        broker.close().map(drop)
    };
    let (mut cuts, mut moved) = (0, 0);
    for seed in 1..=6u64 {
        let whole = SimDisk::new(seed);
        run(&whole, seed).unwrap();
        for cut in 0..whole.operation_count() {
            let disk = SimDisk::new(seed);
            disk.cut_power_after(cut);
            let _ = run(&disk, seed);
            let mut choices = Choices(seed ^ cut << 8 | 1);
            for way in 0..3 {
                let image = disk.crash(|_, _| way == 0 || way == 1 && choices.next().is_multiple_of(2));
                let Ok(broker) = open(&image) else { continue };
                let Ok(described) = broker.describe_group("billing") else { continue };
                cuts += 1;
                for position in &described.positions {
                    let (committed, start) = (position.committed.offset, position.log_start_offset);
                    assert!(committed >= start, "seed {seed}, cut {cut}: {committed} is below {start}");
                    moved += u64::from(start.get() > 0);
                }
            }
        }
    }
    println!("{cuts} power cuts left a group with a position, {moved} of them a log start that was moved");
    assert!(cuts > 1_000 && moved > 100, "{cuts} {moved}");
}
