//! `seglog`: one segment file of a fixed size, with a buffer in the process.

use std::path::PathBuf;
use std::sync::Mutex;

use seglog::read::{ReadHint, Reader};
use seglog::write::Writer;

use crate::contest::Result;
use crate::peer::{Peer, PeerKind, Workload, locked};

pub(super) const KIND: PeerKind = PeerKind {
    name: "seglog",
    appended: "in a buffer of the process; one segment only",
    synced: "`sync`: `fdatasync`",
    checked: "CRC-32C of each record",
    workloads: &[Workload::Buffered, Workload::Written, Workload::Durable, Workload::Scan, Workload::Read],
    syncs: true,
    open: |directory, size_bytes| {
        let path = directory.join("seglog");
        let writer = Writer::<0>::create(&path, usize::try_from(size_bytes.max(1 << 20))?, 0)?;
        let segment = Segment { writer, positions: vec![] };
        Ok(Box::new(Log { path, segment: Mutex::new(segment), reader: None }))
    },
};

struct Log {
    path: PathBuf,
    segment: Mutex<Segment>,
    reader: Option<Reader<0>>,
}

struct Segment {
    writer: Writer<0>,
    positions: Vec<u64>,
}

impl Log {
    /// A reader of all that was appended: it sees what is synced.
    fn reader(&mut self) -> Result<&mut Reader<0>> {
        if self.reader.is_none() {
            let writer = &mut locked(&mut self.segment).writer;
            writer.sync()?;
            self.reader = Some(Reader::open(&self.path, Some(writer.flushed_offset()))?);
        }
        self.reader.as_mut().ok_or_else(|| "it was just opened".into())
    }
}

impl Peer for Log {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        let segment = locked(&mut self.segment);
        let (position, _) = segment.writer.append_data(value)?;
        segment.positions.push(position);
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        Ok(locked(&mut self.segment).writer.flush_writer()?)
    }

    fn append_durable(&self, value: &[u8]) -> Result<()> {
        let mut segment = self.segment.lock().map_err(|_| "a thread panicked")?;
        segment.writer.append_data(value)?;
        segment.writer.sync()?;
        Ok(())
    }

    fn scan(&mut self) -> Result<u64> {
        let mut records = self.reader()?.iter(0);
        let mut size_bytes = 0;
        while let Some(record) = records.next_record()? {
            size_bytes += record.data.len() as u64;
        }
        Ok(size_bytes)
    }

    fn read(&mut self, index: u64) -> Result<usize> {
        let positions = &locked(&mut self.segment).positions;
        let position = usize::try_from(index).ok().and_then(|index| positions.get(index).copied());
        let Some(position) = position else { return super::missing(index) };
        Ok(self.reader()?.read_record(position, ReadHint::Random)?.data.len())
    }
}
