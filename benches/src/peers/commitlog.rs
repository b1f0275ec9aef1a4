//! `commitlog`: a segmented log with a memory-mapped index.

use std::path::Path;
use std::sync::Mutex;

use commitlog::message::{MessageBuf, MessageSet};
use commitlog::{CommitLog, LogOptions, ReadLimit};

use crate::contest::Result;
use crate::peer::{Peer, PeerKind, Workload, locked};

pub(super) const KIND: PeerKind = PeerKind {
    name: "commitlog",
    appended: "in the page cache; one `write` each",
    synced: "`flush`: syncs at most pages of its index, never the records",
    checked: "CRC-32C of each record, by the reader (`verify_hash`)",
    workloads: &[
        Workload::Buffered,
        Workload::Written,
        Workload::Durable,
        Workload::Scan,
        Workload::Read,
        Workload::Reopen,
    ],
    syncs: false,
    open: |directory, _| Ok(Box::new(Log(Mutex::new(open(directory)?)))),
};

struct Log(Mutex<CommitLog>);

fn open(directory: &Path) -> Result<CommitLog> {
    let mut options = LogOptions::new(directory.join("commitlog"));
    options.segment_max_bytes(1 << 30).index_max_items(10_000_000).message_max_bytes(16 << 20);
    Ok(CommitLog::new(options)?)
}

impl Peer for Log {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        locked(&mut self.0).append_msg(value)?;
        Ok(())
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()> {
        let mut batch: MessageBuf = values.iter().collect();
        locked(&mut self.0).append(&mut batch)?;
        Ok(())
    }

    fn append_durable(&self, value: &[u8]) -> Result<()> {
        let mut log = self.0.lock().map_err(|_| "a thread panicked")?;
        log.append_msg(value)?;
        Ok(log.flush()?)
    }

    fn scan(&mut self) -> Result<u64> {
        let log = locked(&mut self.0);
        let (mut from, mut size_bytes) = (0, 0);
        loop {
            let messages = log.read(from, ReadLimit::max_bytes(1 << 20))?;
            for message in messages.iter() {
                if !message.verify_hash() {
                    return Err(format!("record {} does not verify", message.offset()).into());
                }
                size_bytes += message.payload().len() as u64;
                from = message.offset() + 1;
            }
            if messages.is_empty() {
                return Ok(size_bytes);
            }
        }
    }

    fn read(&mut self, index: u64) -> Result<usize> {
        let messages = locked(&mut self.0).read(index, ReadLimit::max_bytes(1_500))?;
        match messages.iter().next() {
            Some(message) if message.verify_hash() => Ok(message.payload().len()),
            _ => super::missing(index),
        }
    }
}
