//! An instance of the application: a member of the group that goes on where its database says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tailwater::{
    Broker, Consumer, Error, OnDivergence, Rebalance, RebalanceListener, Records, Result, SeekTo,
    TopicPartition,
};

use crate::bank::{Bank, Outcome};
use crate::process::{Setup, TOPIC};

pub(crate) const GROUP: &str = "bank";

/// So short that a member which is in the middle of its work when another comes is fenced.
const REVOKE_TIMEOUT: Duration = Duration::from_millis(2);

/// Seeks to the stored cursors of what is assigned.
struct Resume(Arc<Mutex<Bank>>);

impl RebalanceListener for Resume {
    fn on_assigned(&mut self, member: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        let mut bank = self.0.lock().unwrap();
        for partition in partitions {
            let stored = bank.resume(member.position(partition)?);
            let stored = stored.map_err(|error| Error::Backend(Arc::new(error)))?;
            member.seek(partition, SeekTo::Cursor(stored))?;
        }
        Ok(())
    }

    fn on_revoked(&mut self, member: &mut Rebalance<'_>, _: &[TopicPartition]) -> Result<()> {
        // All that was polled has been applied, or sought back to. It is given up the sooner for it, and waited for by
        // nobody.
        drop(member.commit());
        Ok(())
    }
}

pub(crate) struct Instance {
    pub(crate) consumer: Consumer,
    bank: Arc<Mutex<Bank>>,
}

impl Instance {
    pub(crate) fn start(setup: &Setup, broker: &Broker, max_records: u32) -> Self {
        let bank = Arc::new(Mutex::new(setup.bank()));
        let options = broker.consumer(GROUP).max_records(max_records).revoke_timeout(REVOKE_TIMEOUT);
        let options = options.on_divergence(OnDivergence::Error).listener(Resume(Arc::clone(&bank)));
        Self { consumer: options.subscribe(&[TOPIC]).unwrap(), bank }
    }

    pub(crate) fn poll(&mut self, wait: Duration) -> Records {
        let records = self.consumer.poll(wait).unwrap();
        assert_eq!(records.events(), []);
        records
    }

    /// To be followed by [`start_over`](Self::start_over) if it was overtaken.
    pub(crate) fn apply(&self, records: &Records) -> Outcome {
        self.bank.lock().unwrap().apply(records).unwrap()
    }

    /// Goes back, or on, to the stored cursors.
    pub(crate) fn start_over(&mut self) {
        let mut bank = self.bank.lock().unwrap();
        for partition in self.consumer.assignment() {
            let stored = bank.resume(self.consumer.position(&partition).unwrap()).unwrap();
            self.consumer.seek(&partition, SeekTo::Cursor(stored)).unwrap();
        }
    }

    /// Leaves the group, and keeps its connection and what it knows.
    pub(crate) fn leave(self) -> Zombie {
        Zombie(self.bank)
    }

    pub(crate) fn dump(&self) -> String {
        self.bank.lock().unwrap().dump().unwrap()
    }
}

/// What is left of an instance whose consumer is gone.
pub(crate) struct Zombie(Arc<Mutex<Bank>>);

impl Zombie {
    pub(crate) fn apply(&self, records: &Records) -> Outcome {
        self.0.lock().unwrap().apply(records).unwrap()
    }

    pub(crate) fn dump(&self) -> String {
        self.0.lock().unwrap().dump().unwrap()
    }
}
