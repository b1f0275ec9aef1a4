//! Exactly-once effects in the application's own database, which is SQLite: processes that are killed at any time,
//! started again, and met by zombies have booked each record once.

#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs)]

mod bank;
mod choices;
mod instance;
mod process;
mod search;

use std::time::Duration;

use bank::{Journal, Mistake, Outcome};
use instance::Instance;
use process::{ENTRY, PARTITIONS, Setup};
use search::{check_whole, search};
use tailwater::{Broker, Message, PartitionId, Records};

const KILLS: u32 = 50;

#[test]
fn with_a_rollback_journal_every_record_has_one_effect_whenever_the_process_dies() {
    if process::play() {
        return;
    }
    assert!(
        std::thread::current().name().is_none_or(|name| name == ENTRY),
        "processes find this test by name"
    );
    search(Journal::Rollback, None, KILLS).unwrap();
}

#[test]
fn with_a_write_ahead_log_every_record_has_one_effect_whenever_the_process_dies() {
    search(Journal::Wal, None, KILLS).unwrap();
}

#[test]
fn a_program_that_does_it_wrong_is_found() {
    for (number, mistake) in Mistake::ALL.into_iter().enumerate() {
        let journal = if number % 2 == 0 { Journal::Wal } else { Journal::Rollback };
        let found = search(journal, Some(mistake), KILLS);
        println!("{mistake:?}: {found:?}");
        assert!(found.is_err(), "{mistake:?} was not noticed");
    }
}

/// Three bookings in each partition.
fn publish_twelve(broker: &Broker) {
    let producer = broker.producer("bookings").unwrap();
    for n in 0..3 * PARTITIONS {
        let (account, cents) = (format!("account {}", n % 5), (10 + n).to_string());
        let message = Message::new(cents.as_bytes()).key(account.as_bytes());
        producer.publish(message.partition(PartitionId::new(n % PARTITIONS))).unwrap();
    }
}

#[test]
fn an_instance_that_was_taken_for_dead_changes_nothing_once_another_has_gone_on() {
    for journal in [Journal::Rollback, Journal::Wal] {
        for done_by_the_new in 1..=3 * PARTITIONS {
            let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let setup = Setup::create(root.path(), journal, None);
            let broker = setup.broker();
            publish_twelve(&broker);

            let mut old = Instance::start(&setup, &broker, 100);
            let held = old.poll(Duration::ZERO);
            assert_eq!(held.count(), 12);
            // It stops here. Its consumer is gone; its records, its connection and its cursors are not.
            let old = old.leave();

            let mut new = Instance::start(&setup, &broker, 1);
            for _ in 0..done_by_the_new {
                let records = new.poll(Duration::ZERO);
                assert_eq!(new.apply(&records), Outcome::Applied);
            }
            let before = new.dump();
            // In some partitions the new one may have done nothing yet; what the old one wants is one transaction.
            assert_eq!(old.apply(&held), Outcome::Overtaken);
            assert_eq!(new.dump(), before, "after {done_by_the_new} records");

            finish(new);
            drop(broker);
            check_whole(&setup).unwrap();
        }
    }
}

#[test]
fn of_two_at_the_same_place_one_books_and_the_other_goes_on_behind_it() {
    for journal in [Journal::Rollback, Journal::Wal] {
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let setup = Setup::create(root.path(), journal, None);
        let broker = setup.broker();
        publish_twelve(&broker);

        let mut old = Instance::start(&setup, &broker, 5);
        let held = old.poll(Duration::ZERO);
        let old = old.leave();
        let mut new = Instance::start(&setup, &broker, 100);
        let records = new.poll(Duration::ZERO);
        // The new one has taken over and booked nothing: the old one is as good as it.
        assert_eq!(old.apply(&held), Outcome::Applied);
        let before = old.dump();
        assert_eq!(new.apply(&records), Outcome::Overtaken);
        assert_eq!(old.dump(), before);

        new.start_over();
        let rest = new.poll(Duration::ZERO);
        assert_eq!(rest.count(), 12 - held.count());
        assert_eq!(new.apply(&rest), Outcome::Applied);
        // The same records once more are nobody's.
        assert_eq!(old.apply(&held), Outcome::Overtaken);
        assert_eq!(new.apply(&records), Outcome::Overtaken);
        drop((new, broker));
        check_whole(&setup).unwrap();
    }
}

#[test]
fn an_instance_that_was_refused_books_nothing_until_it_has_started_over() {
    // A zombie that was refused in one partition, and had its next batch accepted in another, left out what the first
    // batch held of that. The cursor was as it knew it; what it had in hand did not follow it.
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let setup = Setup::create(root.path(), Journal::Wal, None);
    let broker = setup.broker();
    publish_twelve(&broker);

    let mut old = Instance::start(&setup, &broker, 4);
    let held = [(); 3].map(|()| old.poll(Duration::ZERO));
    assert_eq!(held.each_ref().map(partitions), [vec![0, 0, 0, 1], vec![2, 2, 2, 3], vec![1, 1, 3, 3]]);
    let old = old.leave();
    let mut new = Instance::start(&setup, &broker, 1);
    let records = new.poll(Duration::ZERO);
    assert_eq!(partitions(&records), [0]);
    assert_eq!(new.apply(&records), Outcome::Applied);
    let before = new.dump();
    for records in &held {
        assert_eq!(old.apply(records), Outcome::Overtaken);
    }
    assert_eq!(new.dump(), before);
    finish(new);
    drop(broker);
    check_whole(&setup).unwrap();
}

fn partitions(records: &Records) -> Vec<u32> {
    records.iter().map(|record| record.partition().get()).collect()
}

/// Books what is left.
fn finish(mut instance: Instance) {
    loop {
        let records = instance.poll(Duration::ZERO);
        if records.is_empty() {
            return;
        }
        assert_eq!(instance.apply(&records), Outcome::Applied);
    }
}
