//! `redb`: a copy-on-write B-tree.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use crate::contest::Result;
use crate::peer::{Peer, PeerKind, Workload};

pub(super) const KIND: PeerKind = PeerKind {
    name: "redb",
    appended: "a transaction that a crash takes back (`Durability::None`)",
    synced: "a transaction: `fdatasync`",
    checked: "checksums of pages after a crash only; not at each read",
    workloads: &[Workload::Buffered, Workload::Durable, Workload::Scan, Workload::Read, Workload::Reopen],
    syncs: true,
    open: |directory, _| {
        let database = Database::create(directory.join("redb"))?;
        let write = database.begin_write()?;
        let next = write.open_table(RECORDS)?.last()?.map_or(0, |(key, _)| key.value() + 1);
        write.commit()?;
        Ok(Box::new(Store { database, next: AtomicU64::new(next), order: Mutex::new(()) }))
    },
};

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");

struct Store {
    database: Database,
    next: AtomicU64,
    order: Mutex<()>,
}

impl Store {
    fn insert(&self, values: &[&[u8]], durability: Durability) -> Result<()> {
        let mut write = self.database.begin_write()?;
        write.set_durability(durability)?;
        {
            let mut records = write.open_table(RECORDS)?;
            for value in values {
                records.insert(self.next.fetch_add(1, Ordering::Relaxed), *value)?;
            }
        }
        Ok(write.commit()?)
    }
}

impl Peer for Store {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.insert(&[value], Durability::None)
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()> {
        self.insert(values, Durability::None)
    }

    fn append_durable(&self, value: &[u8]) -> Result<()> {
        let _order = self.order.lock().map_err(|_| "a thread panicked")?;
        self.insert(&[value], Durability::Immediate)
    }

    fn scan(&mut self) -> Result<u64> {
        let read = self.database.begin_read()?;
        let records = read.open_table(RECORDS)?;
        records.iter()?.try_fold(0, |size_bytes, entry| Ok(size_bytes + entry?.1.value().len() as u64))
    }

    fn read(&mut self, index: u64) -> Result<usize> {
        let records = self.database.begin_read()?.open_table(RECORDS)?;
        match records.get(index)? {
            Some(value) => Ok(value.value().len()),
            None => super::missing(index),
        }
    }
}
