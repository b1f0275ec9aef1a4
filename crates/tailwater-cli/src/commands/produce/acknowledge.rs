//! The waiting half: receipts in, acknowledgements out, in order.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::task::{Context, Poll, Waker};

use indicatif::ProgressBar;
use tailwater::{Appended, Broker, PartitionId, Receipt, TopicPartition};

use crate::directory::{embedded, warn_of_recovery};
use crate::exit::Result;
use crate::output::Output;

/// Waits for receipts, counts them, and prints them if asked to.
pub(super) struct Acknowledger<'b> {
    broker: &'b Broker,
    topic: String,
    output: Option<Output>,
    count: u64,
    /// The partitions that were heard of, so that each one's recovery is told once.
    known: HashSet<PartitionId>,
    last: Option<PartitionId>,
    /// Out of the way while something is said.
    bar: ProgressBar,
}

impl<'b> Acknowledger<'b> {
    pub(super) fn new(broker: &'b Broker, topic: String, acks: bool, bar: ProgressBar) -> Self {
        let output = acks.then(Output::new);
        Self { broker, topic, output, count: 0, known: HashSet::new(), last: None, bar }
    }

    /// How many records were acknowledged, from the first on without a gap.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Waits for all receipts, until no more come. Whatever is printed is flushed before each wait.
    pub(super) fn run(&mut self, receiver: &Receiver<Vec<Receipt<Appended>>>) -> Result<()> {
        loop {
            let receipts = match receiver.try_recv() {
                Ok(receipts) => receipts,
                Err(TryRecvError::Disconnected) => return self.flush(),
                Err(TryRecvError::Empty) => {
                    self.flush()?;
                    match receiver.recv() {
                        Ok(receipts) => receipts,
                        Err(_) => return Ok(()),
                    }
                }
            };
            for mut receipt in receipts {
                let outcome = match now(&mut receipt) {
                    Some(outcome) => outcome,
                    None => {
                        self.flush()?;
                        receipt.wait()
                    }
                };
                match outcome {
                    Ok(appended) => self.acknowledge(appended)?,
                    Err(error) => {
                        self.flush()?;
                        return Err(error.into());
                    }
                }
            }
        }
    }

    fn acknowledge(&mut self, appended: Appended) -> Result<()> {
        let partition = appended.partition;
        if self.last != Some(partition) {
            self.last = Some(partition);
            if self.known.insert(partition) {
                let place = TopicPartition::new(self.topic.as_str(), partition);
                let report = embedded(self.broker)?.recovery_report(&place)?;
                self.bar.suspend(|| warn_of_recovery(&place, &report));
            }
        }
        self.count += 1;
        match &mut self.output {
            Some(output) => output.line(&format!("{partition}\t{}", appended.offset)),
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.output.as_mut().map_or(Ok(()), Output::flush)
    }
}

/// The outcome, if it is there without waiting.
fn now(receipt: &mut Receipt<Appended>) -> Option<tailwater::Result<Appended>> {
    match Pin::new(receipt).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}
