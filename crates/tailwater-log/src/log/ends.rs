//! How far a log goes: what readers look at without a lock.

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::{LogEpoch, Offset};

/// What readers may see, published by whoever wrote or synced it.
#[derive(Debug)]
pub(crate) struct Ends {
    start: AtomicU64,
    written: AtomicU64,
    durable: AtomicU64,
    epoch: AtomicU32,
}

impl Ends {
    pub(crate) fn new(start: Offset, end: Offset, epoch: LogEpoch) -> Self {
        Self {
            start: AtomicU64::new(start.get()),
            written: AtomicU64::new(end.get()),
            durable: AtomicU64::new(end.get()),
            epoch: AtomicU32::new(epoch.get()),
        }
    }

    pub(crate) fn start(&self) -> Offset {
        Offset::new(self.start.load(Ordering::SeqCst))
    }

    pub(crate) fn written(&self) -> Offset {
        Offset::new(self.written.load(Ordering::SeqCst))
    }

    pub(crate) fn durable(&self) -> Offset {
        Offset::new(self.durable.load(Ordering::SeqCst))
    }

    pub(crate) fn epoch(&self) -> LogEpoch {
        LogEpoch::new(self.epoch.load(Ordering::SeqCst))
    }

    pub(crate) fn set_start(&self, start: Offset) {
        self.start.store(start.get(), Ordering::SeqCst);
    }

    pub(crate) fn set_written(&self, written: Offset) {
        self.written.store(written.get(), Ordering::SeqCst);
    }

    pub(crate) fn set_durable(&self, durable: Offset) {
        self.durable.store(durable.get(), Ordering::SeqCst);
    }

    pub(crate) fn set_epoch(&self, epoch: LogEpoch) {
        self.epoch.store(epoch.get(), Ordering::SeqCst);
    }
}
