//! Sending from a task: the wait for room, without a thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tailwater_log::Signal;

use super::{Message, Producer, Room};
use crate::broker::LazyLog;
use crate::maintenance::Flush;
use crate::receipt::{Appended, Receipt};
use crate::{Error, Result};

/// The future of [`Producer::send_async`]: the message's receipt. Nothing is sent before it is first polled, and nothing was
/// if it is dropped before it is ready, so that it can be cancelled at any time. It never syncs: where there is room only
/// after a sync, a thread of the broker makes it.
#[derive(Debug)]
#[must_use = "nothing is sent before the future is polled"]
pub struct SendAsync<'p, 'm> {
    producer: &'p Producer,
    message: Message<'m>,
    /// Chosen at the first poll, and kept.
    partition: Option<Arc<LazyLog>>,
    /// The sync that the message waits for, where no write alone makes room.
    flush: Option<Arc<Flush>>,
    /// What wakes the task when a group that it waits for commits.
    signal: Option<Arc<Signal>>,
}

impl<'p, 'm> SendAsync<'p, 'm> {
    pub(super) fn new(producer: &'p Producer, message: Message<'m>) -> Self {
        Self { producer, message, partition: None, flush: None, signal: None }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<Receipt<Appended>>> {
        let partition = match &self.partition {
            Some(chosen) => Arc::clone(chosen),
            None => {
                let chosen = self.producer.route(&self.message, |chosen| Ok(Arc::clone(chosen)))?;
                self.partition = Some(Arc::clone(&chosen));
                chosen
            }
        };
        let broker = &self.producer.shared.broker;
        let mut had_room = false;
        loop {
            if let Some(flush) = &self.flush {
                std::task::ready!(flush.poll(context))?;
                self.flush = None;
            }
            let sent = if self.message.expires() {
                Message::with_records(std::slice::from_ref(&self.message), |records| {
                    self.producer.send_to(&partition, records, Room::Fail)
                })
            } else {
                self.producer.send_to(&partition, &[self.message.to_record()], Room::Fail)
            };
            match &sent {
                Err(Error::GroupLagging { .. }) if self.producer.waits_for_group() => {
                    std::task::ready!(self.poll_group(context));
                    continue;
                }
                Err(Error::StagingFull { .. }) => {}
                _ => return Poll::Ready(sent),
            }
            let topic = &self.producer.shared.topic;
            let log = topic.open(&partition)?;
            if had_room {
                // There is room in memory and none in the segment: a roll waits for a sync.
                self.flush = Some(broker.flush(vec![Arc::clone(&partition)]));
                had_room = false;
                continue;
            }
            match log.poll_room(context) {
                Poll::Ready(room) => room.map_err(|error| topic.explain(error, partition.place()))?,
                Poll::Pending => {
                    // Somebody has to write, and the task must not.
                    broker.queues().request_sync(&partition);
                    return Poll::Pending;
                }
            }
            had_room = true;
        }
    }
}

impl SendAsync<'_, '_> {
    /// For a message that a group is too far behind for: `Ready` if it is to be tried again, which it is once after
    /// everything that may let it through.
    fn poll_group(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let broker = &self.producer.shared.broker;
        if let Some(signal) = &self.signal
            && signal.poll_news(context).is_pending()
        {
            return Poll::Pending;
        }
        let signal = self.signal.get_or_insert_with(|| {
            let signal = Arc::new(Signal::new());
            broker.watch(&signal);
            signal
        });
        // What was committed before this is seen by the next try, and what is committed after it is news.
        signal.arm();
        broker.progress().watch(signal);
        Poll::Ready(())
    }
}

impl Future for SendAsync<'_, '_> {
    type Output = Result<Receipt<Appended>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_send(context)
    }
}
