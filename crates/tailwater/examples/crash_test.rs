//! Crash-tests a program that reads one topic, does its work, and publishes to another: the power fails after every operation
//! on the disk, in many of the ways a disk may be left, and the program has to end as if nothing had happened.
//!
//! ```sh
//! cargo run --release -p tailwater --example crash_test
//! ```
//!
//! The same can be done to any program that uses Tailwater: it opens its broker on a [`SimDisk`] instead of a directory.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tailwater::storage::SimDisk;
use tailwater::{Broker, BrokerOptions, Maintenance, Message, Result, TopicConfig};

const ORDERS: u32 = 12;

fn open(disk: &SimDisk) -> Result<Broker> {
    // Without threads every run makes the same operations in the same order.
    BrokerOptions::new().maintenance(Maintenance::Manual).open_on(Arc::new(disk.clone()), "/shop")
}

/// The program under test: an invoice for each order.
fn write_invoices(disk: &SimDisk) -> Result<()> {
    let broker = open(disk)?;
    let invoices = broker.producer("invoices")?;
    let mut billing = broker.consumer("billing").max_records(3).subscribe(&["orders"])?;
    loop {
        let records = billing.poll(Duration::ZERO)?;
        if records.is_empty() {
            return broker.close().map(drop);
        }
        let mut receipts = Vec::new();
        for order in records.iter() {
            let text = format!("invoice for order {}", order.offset());
            receipts.push(invoices.send(Message::new(text.as_bytes()))?);
        }
        // First the invoices are durable, then the orders are done. The other way round this test fails: try it.
        for receipt in receipts {
            receipt.wait()?;
        }
        billing.commit().wait()?;
    }
}

/// A disk on which orders wait.
fn prepare() -> Result<SimDisk> {
    let disk = SimDisk::new(1);
    let broker = open(&disk)?;
    broker.create_topic("orders", &TopicConfig::new())?;
    broker.create_topic("invoices", &TopicConfig::new())?;
    let orders = broker.producer("orders")?;
    for order in 0..ORDERS {
        orders.publish(format!("order {order}").as_bytes())?;
    }
    broker.close()?;
    Ok(disk)
}

/// The invoices that there are.
fn read_invoices(disk: &SimDisk) -> Result<Vec<String>> {
    let broker = open(disk)?;
    let mut reader = broker.reader().subscribe(&["invoices"])?;
    let mut invoices = Vec::new();
    loop {
        let records = reader.poll(Duration::ZERO)?;
        if records.is_empty() {
            return Ok(invoices);
        }
        let texts = records
            .iter()
            .map(|record| String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned());
        invoices.extend(texts);
    }
}

fn main() -> ExitCode {
    match search() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Cuts the power everywhere. True if the program came through it all.
fn search() -> Result<bool> {
    let prepared = prepare()?;
    let whole = prepared.kill();
    let before = whole.operation_count();
    write_invoices(&whole)?;
    let operations = whole.operation_count() - before;

    let (mut states, mut most_twice) = (0, 0);
    for cut in 0..=operations {
        let disk = prepared.kill();
        disk.cut_power_after(cut);
        // It ends with an error wherever the power fails; whatever it was told is durable has to be there all the same.
        let _ = write_invoices(&disk);
        let pending = disk.pending();
        // What was not synced is gone, is there, or is there in part: each alone, and all but one.
        let ways = (0..pending).flat_map(|one| [(one, true), (one, false)]);
        for (one, is_alone) in ways.chain([(pending, true), (pending, false)]) {
            let restarted = disk.crash(|index, _| (index == one) == is_alone);
            write_invoices(&restarted)?;
            let found = read_invoices(&restarted)?;
            for order in 0..ORDERS {
                let wanted = format!("invoice for order {order}");
                let count = found.iter().filter(|invoice| **invoice == wanted).count();
                if count == 0 {
                    println!("power cut after operation {cut}, {one} alone: {is_alone}: no {wanted}");
                    return Ok(false);
                }
                // What was not committed is done again.
                most_twice = most_twice.max(found.len() - ORDERS as usize);
            }
            states += 1;
        }
    }
    println!(
        "{states} states after {} power cuts: an invoice for each order in all of them, at most {most_twice} written twice",
        operations + 1
    );
    Ok(true)
}
