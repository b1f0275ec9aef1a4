//! `fjall`: an LSM tree with a journal.

use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::contest::Result;
use crate::peer::{Peer, PeerKind, Workload};

pub(super) const KIND: PeerKind = PeerKind {
    name: "fjall",
    appended: "in the buffer of its journal (`manual_journal_persist`) and in a memtable",
    synced: "`persist(SyncData)`: `fdatasync` of the journal",
    checked: "XXH3 of each block on disk; none of what is in the memtable",
    workloads: &[
        Workload::Buffered,
        Workload::Written,
        Workload::Durable,
        Workload::Scan,
        Workload::Read,
        Workload::Reopen,
    ],
    syncs: true,
    open: |directory, size_bytes| {
        let database = Database::builder(directory.join("fjall"))
            .manual_journal_persist(true)
            .max_journaling_size(size_bytes.max(512 << 20))
            .open()?;
        let records = database.keyspace("records", KeyspaceCreateOptions::default)?;
        let last = records.last_key_value().map(|entry| entry.key()).transpose()?;
        let next =
            last.and_then(|key| key.first_chunk().map(|key| u64::from_be_bytes(*key) + 1)).unwrap_or(0);
        Ok(Box::new(Store { database, records, next: AtomicU64::new(next) }))
    },
};

struct Store {
    database: Database,
    records: Keyspace,
    next: AtomicU64,
}

impl Store {
    fn insert(&self, value: &[u8]) -> Result<()> {
        let key = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        Ok(self.records.insert(key, value)?)
    }
}

impl Peer for Store {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.insert(value)
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()> {
        let mut batch = self.database.batch();
        for value in values {
            let key = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            batch.insert(&self.records, key, *value);
        }
        Ok(batch.commit()?)
    }

    fn write(&mut self) -> Result<()> {
        Ok(self.database.persist(PersistMode::Buffer)?)
    }

    fn append_durable(&self, value: &[u8]) -> Result<()> {
        self.insert(value)?;
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    fn scan(&mut self) -> Result<u64> {
        self.records.iter().try_fold(0, |size_bytes, entry| Ok(size_bytes + entry.value()?.len() as u64))
    }

    fn read(&mut self, index: u64) -> Result<usize> {
        match self.records.get(index.to_be_bytes())? {
            Some(value) => Ok(value.len()),
            None => super::missing(index),
        }
    }
}
