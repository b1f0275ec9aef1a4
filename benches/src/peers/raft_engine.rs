//! `raft-engine`: the log of a Raft node, with an index in memory.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use crate::contest::Result;
use crate::peer::{Peer, PeerKind, Workload};

pub(super) const KIND: PeerKind = PeerKind {
    name: "raft-engine",
    appended: "in the page cache; one `pwrite` for those who append together",
    synced: "`fdatasync`, shared by those who wait",
    checked: "CRC-32 of each batch",
    workloads: &[
        Workload::Buffered,
        Workload::Written,
        Workload::Durable,
        Workload::Scan,
        Workload::Read,
        Workload::Reopen,
    ],
    syncs: true,
    open: |directory, size_bytes| Ok(Box::new(Log::open(directory, size_bytes)?)),
};

const GROUP: u64 = 1;
/// The index in front of each value.
const INDEX_BYTES: usize = 8;

struct Log {
    engine: Engine,
    next: AtomicU64,
}

#[derive(Clone)]
struct Entries;

impl MessageExt for Entries {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        entry.get_value().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

impl Log {
    fn open(directory: &Path, size_bytes: u64) -> Result<Self> {
        let config = Config {
            dir: directory.join("raft-engine").to_string_lossy().into_owned(),
            purge_threshold: ReadableSize(size_bytes.max(1 << 30)),
            batch_compression_threshold: ReadableSize(0),
            ..Config::default()
        };
        let engine = Engine::open(config)?;
        let next = engine.last_index(GROUP).map_or(0, |last| last + 1);
        Ok(Self { engine, next: AtomicU64::new(next) })
    }

    fn add(&self, values: &[&[u8]]) -> Result<()> {
        let first = self.next.fetch_add(values.len() as u64, Ordering::SeqCst);
        let entries: Vec<BytesValue> =
            (first..).zip(values).map(|(index, value)| entry(index, value)).collect();
        let mut batch = LogBatch::with_capacity(1);
        batch.add_entries::<Entries>(GROUP, &entries)?;
        self.engine.write(&mut batch, false)?;
        Ok(())
    }
}

fn entry(index: u64, value: &[u8]) -> BytesValue {
    let mut bytes = Vec::with_capacity(INDEX_BYTES + value.len());
    bytes.extend_from_slice(&index.to_le_bytes());
    bytes.extend_from_slice(value);
    let mut entry = BytesValue::new();
    entry.set_value(bytes);
    entry
}

impl Peer for Log {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.add(&[value])
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()> {
        self.add(values)
    }

    fn append_durable(&self, value: &[u8]) -> Result<()> {
        // A group's entries come one after the other; each thread uses a group of its own, as Raft groups do.
        let group = GROUP + 1 + thread_number();
        let index = self.engine.last_index(group).map_or(0, |last| last + 1);
        let mut batch = LogBatch::with_capacity(1);
        batch.add_entries::<Entries>(group, &[entry(index, value)])?;
        self.engine.write(&mut batch, true)?;
        Ok(())
    }

    fn scan(&mut self) -> Result<u64> {
        let mut size_bytes = 0;
        for group in self.engine.raft_groups() {
            let (Some(first), Some(last)) = (self.engine.first_index(group), self.engine.last_index(group))
            else {
                continue;
            };
            let mut from = first;
            while from <= last {
                let end = (from + 1_000).min(last + 1);
                let mut entries = Vec::new();
                self.engine.fetch_entries_to::<Entries>(group, from, end, None, &mut entries)?;
                size_bytes +=
                    entries.iter().map(|entry| entry.get_value().len() - INDEX_BYTES).sum::<usize>() as u64;
                from = end;
            }
        }
        Ok(size_bytes)
    }

    fn read(&mut self, index: u64) -> Result<usize> {
        match self.engine.get_entry::<Entries>(GROUP, index)? {
            Some(entry) => Ok(entry.get_value().len() - INDEX_BYTES),
            None => super::missing(index),
        }
    }
}

/// A number for the calling thread, from 0 on.
fn thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    thread_local!(static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}
