//! Consumers read what lies in front of damage and behind it, also where the log has several epochs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
mod damaged;

use std::time::Duration;

use common::partition;
use damaged::{is_segment, open, path, reference_with_history};
use tailwater::storage::SimDisk;
use tailwater::{Broker, Consumer, Error, Message, Offset, PartitionId, SeekTo};

/// `orders-0`, with 24 records in four segments, both headers of the second damaged. The records behind it have another
/// epoch in all but the first case.
fn damaged_orders(is_closed: bool) -> (SimDisk, Vec<u64>) {
    let disk = reference_with_history(is_closed).0;
    if !is_closed {
        let broker = open(&disk).unwrap();
        let message = Message::new(b"of the second epoch").partition(PartitionId::ZERO);
        broker.producer("orders").unwrap().publish(message).unwrap();
        assert!(
            broker.embedded().unwrap().stats(&partition("orders", 0)).unwrap().log_end_offset.get() == 25
        );
        broker.close().unwrap();
    }
    let mut segments: Vec<_> = disk
        .file_paths()
        .into_iter()
        .filter(|file| is_segment(file) && file.starts_with(path("orders-0")))
        .collect();
    segments.sort();
    [70, 8 * 512 + 70].into_iter().for_each(|bit| disk.flip_bit(&segments[1], bit).unwrap());
    let bases = segments.iter().map(|file| file.file_stem().unwrap().to_str().unwrap().parse().unwrap());
    (disk, bases.collect())
}

/// The offsets that are read until nothing more comes, or the error.
fn read_on(consumer: &mut Consumer) -> (Vec<u64>, Option<Error>) {
    let mut offsets = Vec::new();
    loop {
        match consumer.poll(Duration::ZERO) {
            Ok(records) if records.is_empty() => return (offsets, None),
            Ok(records) => {
                assert_eq!(records.events(), []);
                offsets.extend(records.iter().map(|record| record.offset().get()));
            }
            Err(error) => return (offsets, Some(error)),
        }
    }
}

/// Reads up to the damage, is told where it ends, and goes on there.
fn read_around(consumer: &mut Consumer, from: u64, bases: &[u64], end: u64) {
    let orders = partition("orders", 0);
    let (offsets, error) = read_on(consumer);
    assert_eq!(offsets, (from..bases[1]).collect::<Vec<_>>());
    let Some(Error::Corrupt(found)) = error else { panic!("{error:?}") };
    assert_eq!((found.offsets.start.get(), found.offsets.end.get()), (bases[1], bases[2]));
    consumer.seek(&orders, SeekTo::Offset(found.offsets.end)).unwrap();
    let (offsets, error) = read_on(consumer);
    assert_eq!(offsets, (bases[2]..end).collect::<Vec<_>>(), "{error:?}");
    assert!(error.is_none(), "{error:?}");
}

fn group_at(broker: &Broker, offset: u64) -> Consumer {
    let orders = partition("orders", 0);
    let mut consumer = broker.consumer("audit").assign(std::slice::from_ref(&orders)).unwrap();
    consumer.seek(&orders, SeekTo::Offset(Offset::new(offset))).unwrap();
    consumer.commit().wait().unwrap();
    consumer
}

#[test]
fn a_reader_goes_on_behind_a_segment_that_cannot_be_read() {
    // To seek behind it was refused: the epoch of the record before was looked for in the segment that is damaged.
    for is_closed in [true, false] {
        let (disk, bases) = damaged_orders(is_closed);
        let broker = open(&disk).unwrap();
        let mut reader = broker.reader().assign(&[partition("orders", 0)]).unwrap();
        read_around(&mut reader, 0, &bases, if is_closed { 24 } else { 25 });
    }
}

#[test]
fn a_position_of_an_earlier_epoch_in_front_of_the_damage_holds() {
    // Where the epochs begin could not be listed as a whole, and every position of an earlier one was refused.
    let disk = reference_with_history(false).0;
    let broker = open(&disk).unwrap();
    drop(group_at(&broker, 2));
    broker.close().unwrap();
    let (damaged, bases) = damaged_orders(false);
    for (file, bytes) in damaged::files_in(&disk, &path("__groups-0")) {
        damaged.write_file(&file, &bytes).unwrap();
    }
    let broker = open(&damaged).unwrap();
    let mut audit = broker.consumer("audit").assign(&[partition("orders", 0)]).unwrap();
    read_around(&mut audit, 2, &bases, 25);
    audit.commit().wait().unwrap();
}

#[test]
fn a_position_behind_the_damage_is_not_guessed() {
    let disk = reference_with_history(false).0;
    let broker = open(&disk).unwrap();
    drop(group_at(&broker, 20));
    broker.close().unwrap();
    let (damaged, bases) = damaged_orders(false);
    for (file, bytes) in damaged::files_in(&disk, &path("__groups-0")) {
        damaged.write_file(&file, &bytes).unwrap();
    }
    let broker = open(&damaged).unwrap();
    let orders = partition("orders", 0);
    let mut audit = broker.consumer("audit").assign(std::slice::from_ref(&orders)).unwrap();
    // The damaged segment may be where the epoch of the position ended.
    let (offsets, error) = read_on(&mut audit);
    assert!(offsets.is_empty() && matches!(error, Some(Error::Corrupt(_))), "{offsets:?} {error:?}");
    audit.seek(&orders, SeekTo::Offset(Offset::new(bases[2]))).unwrap();
    assert_eq!(read_on(&mut audit).0, (bases[2]..25).collect::<Vec<_>>());
    // Once it is repaired, it is known.
    drop(audit);
    broker.embedded().unwrap().repair(&orders).unwrap();
    let mut audit = broker.consumer("audit").assign(&[orders]).unwrap();
    assert_eq!(read_on(&mut audit).0, (20..25).collect::<Vec<_>>());
}
