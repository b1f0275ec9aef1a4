//! A child that was forked while a broker was open has all of it in its memory, and may write nothing.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fork::{Fork, WEXITSTATUS, WIFEXITED, waitpid_nohang};
use tailwater::{
    Broker, BrokerOptions, Durability, Error, Maintenance, Offset, PartitionId, ProducerOptions, Reset,
    TopicConfig, TopicPartition,
};

fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    all
}

/// What the child does with the broker it was born with. Returns the first thing that went otherwise than it should.
fn misuse(broker: &Broker) -> Result<(), &'static str> {
    let refused = |what, result: Result<(), Error>| match result {
        Err(Error::Locked(locked)) if locked.holder.as_deref().is_some_and(|by| by.contains("forked")) => {
            Ok(())
        }
        _ => Err(what),
    };
    let place = TopicPartition::new("orders", PartitionId::ZERO);
    let durable = ProducerOptions::new().durability(Durability::Durable);
    let producer = broker.producer_with("orders", durable).map_err(|_| "a producer")?;
    refused("publish", producer.publish(b"from the child").map(drop))?;
    let embedded = broker.embedded().unwrap();
    refused("sync", embedded.sync(&place).map(drop))?;
    refused("roll", embedded.roll(&place))?;
    refused("truncate", embedded.truncate_to(&place, Offset::ZERO))?;
    refused("delete records", embedded.delete_records_before(&place, Offset::new(3)))?;
    refused("create a topic", broker.create_topic("mails", &TopicConfig::new()))?;
    refused("delete a topic", broker.delete_topic("orders"))?;
    refused("create a group", broker.create_group("billing", &["orders"], Reset::Earliest))?;
    // A partition that the parent had not opened is not opened either.
    let other = broker.producer("others").map_err(|_| "another producer")?;
    refused("publish elsewhere", other.publish(b"from the child").map(drop))?;
    // It ends, and says that nothing was closed in order.
    if broker.close().is_ok() {
        return Err("close");
    }
    Ok(())
}

/// Runs `child` in a forked process and waits for it. Returns its exit code.
fn in_child(child: impl FnOnce() -> i32) -> i32 {
    match fork::fork().unwrap() {
        Fork::Child => std::process::exit(child()),
        Fork::Parent(id) => {
            let start = Instant::now();
            loop {
                match waitpid_nohang(id).unwrap() {
                    Some(status) if WIFEXITED(status) => return WEXITSTATUS(status),
                    Some(status) => panic!("the child ended with {status}"),
                    None if start.elapsed() > Duration::from_secs(30) => {
                        let _ = std::process::Command::new("kill").args(["-9", &id.to_string()]).status();
                        panic!("the child hangs");
                    }
                    None => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        }
    }
}

#[test]
fn a_forked_child_writes_nothing_and_its_parent_goes_on() {
    for maintenance in [Maintenance::Manual, Maintenance::Background] {
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let directory = root.path().join("data");
        let broker = BrokerOptions::new().maintenance(maintenance).open(&directory).unwrap();
        // Staged in memory as well as written and synced: a child that closes its copy in order would write the one over
        // what its parent has written since.
        let config = TopicConfig::new().segment_bytes(8192).durability(Durability::Buffered);
        broker.create_topic("orders", &config).unwrap();
        broker.create_topic("others", &TopicConfig::new()).unwrap();
        let place = TopicPartition::new("orders", PartitionId::ZERO);
        let producer = broker.producer("orders").unwrap();
        let publish = |range: std::ops::Range<u32>| {
            for n in range {
                producer.publish(format!("{n:>100}").as_bytes()).unwrap();
            }
        };
        publish(0..40);
        broker.embedded().unwrap().sync(&place).unwrap();
        // Nobody writes of its own accord while the two are compared.
        std::thread::sleep(Duration::from_millis(300));
        if maintenance == Maintenance::Manual {
            publish(40..45);
        }
        let before = files(&directory);
        for is_polite in [true, false] {
            let code = in_child(|| {
                let closed = || if broker.close().is_ok() { Err("close at once") } else { Ok(()) };
                match if is_polite { closed() } else { misuse(&broker) } {
                    Ok(()) => 0,
                    Err(what) => {
                        eprintln!("in the child: {what}");
                        1
                    }
                }
            });
            assert_eq!(code, 0, "{maintenance:?}");
            assert!(files(&directory) == before, "{maintenance:?}: the child has changed something");
        }
        // The parent still has the directory, and goes on where it was.
        assert!(matches!(Broker::open(&directory), Err(Error::Locked(_))));
        let next = if maintenance == Maintenance::Manual { 45 } else { 40 };
        publish(next..100);
        broker.close().unwrap();
        let broker = Broker::open(&directory).unwrap();
        assert_eq!(broker.embedded().unwrap().verify(&place, &mut |_| {}).unwrap().damage, []);
        let mut reader = broker.reader().reset(Reset::Earliest).subscribe(&["orders"]).unwrap();
        let mut values = Vec::new();
        while values.len() < 100 {
            let records = reader.poll(Duration::from_secs(1)).unwrap();
            assert!(!records.is_empty(), "{maintenance:?}: {} records", values.len());
            values.extend(records.iter().map(|record| record.value().unwrap().to_vec()));
        }
        assert_eq!(values, (0..100).map(|n| format!("{n:>100}").into_bytes()).collect::<Vec<_>>());
    }
}

#[test]
fn what_is_closed_is_free_though_a_forked_child_lives_on() {
    // The lock belongs to the open file, which a child shares: where one thread started a program, another that closed its
    // broker and opened it again found it locked by its own process, until the program ran. A close frees the lock itself.
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let directory = root.path().join("data");
    let broker = Broker::open(&directory).unwrap();
    let (done, is_done) = (root.path().join("done"), || root.path().join("done").exists());
    let reopened = match fork::fork().unwrap() {
        Fork::Child => {
            let start = Instant::now();
            while !is_done() && start.elapsed() < Duration::from_secs(30) {
                std::thread::sleep(Duration::from_millis(2));
            }
            // What it drops is not its own: the parent, which has opened the directory again, keeps it.
            drop(broker);
            std::process::exit(0)
        }
        Fork::Parent(id) => {
            broker.close().unwrap();
            let reopened = Broker::open(&directory);
            std::fs::write(&done, b"").unwrap();
            while waitpid_nohang(id).unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(2));
            }
            reopened.unwrap()
        }
    };
    assert!(matches!(Broker::open(&directory), Err(Error::Locked(_))));
    reopened.close().unwrap();
}
