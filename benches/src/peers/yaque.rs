//! `yaque`: a queue on disk; what was received is gone.

use std::sync::Mutex;

use yaque::{Sender, SenderBuilder};

use crate::contest::Result;
use crate::peer::{Peer, PeerKind, Workload, locked};

pub(super) const KIND: PeerKind = PeerKind {
    name: "yaque",
    appended: "in the page cache; one `write` each",
    synced: "cannot: it never syncs",
    checked: "nothing but the length of each record",
    workloads: &[Workload::Buffered, Workload::Written],
    syncs: false,
    open: |directory, _| {
        let sender = SenderBuilder::new().segment_size(1 << 30).open(directory.join("yaque"))?;
        Ok(Box::new(Queue(Mutex::new(sender))))
    },
};

struct Queue(Mutex<Sender>);

impl Peer for Queue {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        Ok(locked(&mut self.0).try_send(value).map_err(yaque::TrySendError::unwrap_io)?)
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()> {
        let sent = locked(&mut self.0).try_send_batch(values.iter());
        Ok(sent.map_err(yaque::TrySendError::unwrap_io)?)
    }

    fn append_durable(&self, _: &[u8]) -> Result<()> {
        Err("yaque never syncs".into())
    }

    fn scan(&mut self) -> Result<u64> {
        Err("yaque's records are gone when they are received".into())
    }

    fn read(&mut self, _: u64) -> Result<usize> {
        Err("yaque has no random access".into())
    }
}
