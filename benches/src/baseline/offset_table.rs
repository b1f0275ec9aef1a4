//! One record at a random offset: a table with the position of each record, over a map of the file.

use std::io;
use std::path::Path;

use super::map::Map;
use super::staged::Staged;
use super::{HEADER_BYTES, decode};

/// A file of records, mapped, and the position of each.
#[derive(Debug)]
pub struct OffsetTable {
    map: Map,
    positions: Vec<usize>,
    length_bytes: usize,
}

impl OffsetTable {
    /// Writes `count` records with this value to a new file at `path`, and maps it.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn create(path: &Path, value: &[u8], count: usize) -> io::Result<Self> {
        let record_bytes = HEADER_BYTES + value.len();
        let length_bytes = record_bytes * count;
        let mut file = Staged::create(path, length_bytes as u64)?;
        for _ in 0..count {
            file.append(value)?;
        }
        let map = Map::new(&file.finish()?, length_bytes)?;
        Ok(Self { map, positions: (0..count).map(|index| index * record_bytes).collect(), length_bytes })
    }

    /// The whole file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.map.slice(0, self.length_bytes)
    }

    /// The value of record `index`, checked.
    ///
    /// # Panics
    ///
    /// If there is no such record, or if it does not verify: the baselines read what they wrote.
    #[inline]
    #[must_use]
    pub fn read(&self, index: usize) -> &[u8] {
        let bytes = self.map.slice(self.positions[index], self.length_bytes);
        decode(bytes).expect("the baseline reads what it wrote").0
    }
}
