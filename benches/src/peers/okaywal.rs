//! `okaywal`: a write-ahead log whose segments are reused after a checkpoint.

use std::sync::Mutex;

use okaywal::{Configuration, LogPosition, LogVoid, WriteAheadLog};

use crate::contest::Result;
use crate::peer::{Peer, PeerKind, Workload};

pub(super) const KIND: PeerKind = PeerKind {
    name: "okaywal",
    appended: "cannot: every commit is synced",
    synced: "`fdatasync`, shared by those who wait",
    checked: "CRC-32 of each chunk",
    workloads: &[Workload::Durable, Workload::Read],
    syncs: true,
    open: |directory, size_bytes| {
        let bytes = u32::try_from(size_bytes).unwrap_or(u32::MAX).max(1 << 20);
        let log = Configuration::default_for(directory.join("okaywal"))
            .preallocate_bytes(bytes)
            .checkpoint_after_bytes(u64::from(bytes))
            .open(LogVoid)?;
        Ok(Box::new(Log { log, positions: Mutex::default() }))
    },
};

struct Log {
    log: WriteAheadLog,
    positions: Mutex<Vec<LogPosition>>,
}

impl Peer for Log {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.append_batch(&[value])
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()> {
        let mut entry = self.log.begin_entry()?;
        let positions = crate::peer::locked(&mut self.positions);
        for value in values {
            positions.push(entry.write_chunk(value)?.position);
        }
        entry.commit()?;
        Ok(())
    }

    fn append_durable(&self, value: &[u8]) -> Result<()> {
        let mut entry = self.log.begin_entry()?;
        entry.write_chunk(value)?;
        entry.commit()?;
        Ok(())
    }

    fn scan(&mut self) -> Result<u64> {
        Err("okaywal reads in order only while it recovers".into())
    }

    fn read(&mut self, index: u64) -> Result<usize> {
        let positions = crate::peer::locked(&mut self.positions);
        let position = usize::try_from(index).ok().and_then(|index| positions.get(index).copied());
        let Some(position) = position else { return super::missing(index) };
        let mut reader = self.log.read_at(position)?;
        let mut value = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut value)?;
        if reader.crc_is_valid()? {
            Ok(value.len())
        } else {
            Err(format!("record {index} does not verify").into())
        }
    }
}
