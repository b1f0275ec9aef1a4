//! The content of a simulated file: its sectors, those that were never written left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::limits::SECTOR_BYTES;

pub(super) type Sector = Arc<[u8; SECTOR_BYTES]>;

const SECTOR: u64 = SECTOR_BYTES as u64;

/// The content of a file. Cheap to copy: the sectors are shared.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    length: u64,
    sectors: BTreeMap<u64, Sector>,
}

impl Content {
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Reads from `position`; returns how many bytes there were.
    pub(super) fn read(&self, buffer: &mut [u8], position: u64) -> usize {
        let available = usize::try_from(self.length.saturating_sub(position)).unwrap_or(usize::MAX);
        let count = buffer.len().min(available);
        let buffer = &mut buffer[..count];
        buffer.fill(0);
        let end = position + count as u64;
        for (index, sector) in self.sectors.range(position / SECTOR..end.div_ceil(SECTOR)) {
            let start = index * SECTOR;
            let (from, to) = (start.max(position), (start + SECTOR).min(end));
            let (in_sector, in_buffer) = (to_usize(from - start), to_usize(from - position));
            let length = to_usize(to - from);
            buffer[in_buffer..in_buffer + length].copy_from_slice(&sector[in_sector..in_sector + length]);
        }
        count
    }

    /// The sectors as they are after writing `bytes` at `position`: index and bytes of each that is touched.
    pub(super) fn sectors_after_write(&self, bytes: &[u8], position: u64) -> Vec<(u64, Sector)> {
        let end = position + bytes.len() as u64;
        (position / SECTOR..end.div_ceil(SECTOR))
            .map(|index| {
                let mut sector = self.sectors.get(&index).map_or([0; SECTOR_BYTES], |sector| **sector);
                let start = index * SECTOR;
                let (from, to) = (start.max(position), (start + SECTOR).min(end));
                let source = &bytes[to_usize(from - position)..to_usize(to - position)];
                sector[to_usize(from - start)..to_usize(to - start)].copy_from_slice(source);
                (index, Arc::new(sector))
            })
            .collect()
    }

    pub(super) fn set_sector(&mut self, index: u64, sector: Sector) {
        self.sectors.insert(index, sector);
    }

    /// Flips a bit, counted from the lowest of the first byte.
    pub(super) fn flip_bit(&mut self, bit: u64) {
        let position = bit / 8;
        let sector = self.sectors.entry(position / SECTOR).or_insert_with(|| Arc::new([0; SECTOR_BYTES]));
        Arc::make_mut(sector)[to_usize(position % SECTOR)] ^= 1 << (bit % 8);
    }

    pub(super) fn set_length(&mut self, length: u64) {
        self.length = length;
        self.drop_beyond_end();
    }

    /// Makes the file longer, and keeps bytes that lie beyond the old end.
    pub(super) fn extend(&mut self, length: u64) {
        self.length = self.length.max(length);
    }

    /// Drops bytes that lie beyond the end: a write whose length did not survive.
    pub(super) fn drop_beyond_end(&mut self) {
        self.sectors.split_off(&self.length.div_ceil(SECTOR));
        let used = to_usize(self.length % SECTOR);
        if used > 0
            && let Some(last) = self.sectors.get_mut(&(self.length / SECTOR))
            && last[used..].iter().any(|byte| *byte != 0)
        {
            Arc::make_mut(last)[used..].fill(0);
        }
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let mut content = Self { length: bytes.len() as u64, ..Self::default() };
        for (index, sector) in content.sectors_after_write(bytes, 0) {
            content.set_sector(index, sector);
        }
        content
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; to_usize(self.length)];
        self.read(&mut bytes, 0);
        bytes
    }

    /// Feeds length and non-zero sectors to `hasher`.
    pub(super) fn hash_into(&self, hasher: &mut impl std::hash::Hasher) {
        hasher.write_u64(self.length);
        for (index, sector) in &self.sectors {
            if sector.iter().any(|byte| *byte != 0) {
                hasher.write_u64(*index);
                hasher.write(&sector[..]);
            }
        }
    }
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).expect("the simulated disk holds what fits in memory")
}
