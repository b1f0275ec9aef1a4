//! Receipts: the completion of a durable step.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tailwater_log::{Durability, LogEpoch, Offset, PartitionId};

use crate::Result;
use crate::broker::{LazyLog, Topic};
use crate::maintenance::Flush;

/// Where a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Appended {
    /// The partition.
    pub partition: PartitionId,
    /// The message's offset; of a batch, that of its first message.
    pub offset: Offset,
    /// The log epoch: with the offset it names the message for good, whatever a crash or a truncation does.
    pub epoch: LogEpoch,
}

/// The completion of a durable step: [`wait`](Receipt::wait) for it on a thread, or `.await` it in a task.
///
/// Dropping a receipt cancels nothing, so a task may be cancelled while it awaits one. A task that does never syncs: a thread
/// of the broker does, or the application's ([`Maintenance::Manual`](crate::Maintenance::Manual)). What it tells is known only when it completes: before that an offset could still
/// be given to another message.
///
/// # Examples
///
/// ```
/// use tailwater::{Broker, TopicConfig};
///
/// let broker = Broker::in_memory()?;
/// broker.create_topic("orders", &TopicConfig::new())?;
/// let orders = broker.producer("orders")?;
/// let receipts: Vec<_> = (0..100).map(|n| orders.send(&format!("order {n}"))).collect::<Result<_, _>>()?;
/// for (offset, receipt) in (0..).zip(receipts) {
///     // One sync may have made many of them durable.
///     assert_eq!(receipt.wait()?.offset.get(), offset);
/// }
/// # Ok::<(), tailwater::Error>(())
/// ```
#[must_use = "nothing is acknowledged before the receipt completes"]
pub struct Receipt<T> {
    pending: Pending<T>,
}

enum Pending<T> {
    /// An append, what it is told as, and where it was made.
    Append {
        receipt: tailwater_log::Receipt,
        convert: fn(tailwater_log::Appended, PartitionId) -> T,
        topic: Arc<Topic>,
        partition: Arc<LazyLog>,
    },
    /// An append that is complete from the start, since it is `Buffered`.
    Buffered {
        appended: tailwater_log::Appended,
        convert: fn(tailwater_log::Appended, PartitionId) -> T,
        partition: PartitionId,
    },
    Flush {
        flush: Arc<Flush>,
        value: fn() -> T,
    },
    /// Known from the start.
    Done {
        outcome: Result<()>,
        value: fn() -> T,
    },
}

impl<T> Receipt<T> {
    /// Blocks until the step is as durable as was asked for. May write and sync on this thread, on behalf of all.
    ///
    /// # Errors
    ///
    /// - [`Error::Failed`](crate::Error::Failed), or the error itself, if a write or a sync failed: whether the step is on
    ///   disk is unknown.
    /// - [`Error::DiskFull`](crate::Error::DiskFull) if it could not be written yet; a later write may succeed.
    /// - [`Error::Truncated`](crate::Error::Truncated) if a truncation removed it first.
    /// - [`Error::UnknownTopic`](crate::Error::UnknownTopic), [`Error::Closed`](crate::Error::Closed) if it was not
    ///   reached before the topic was deleted or the broker closed.
    pub fn wait(self) -> Result<T> {
        match self.pending {
            Pending::Append { receipt, convert, topic, partition } => {
                finish(receipt.wait(), convert, &topic, &partition)
            }
            Pending::Buffered { appended, convert, partition } => Ok(convert(appended, partition)),
            Pending::Flush { flush, value } => flush.run().map(|()| value()),
            Pending::Done { outcome, value } => outcome.map(|()| value()),
        }
    }

    /// As [`wait`](Receipt::wait), for at most about `wait` (a sync that this thread has begun is finished first). `None`
    /// if the outcome is still open.
    ///
    /// # Errors
    ///
    /// As [`wait`](Receipt::wait).
    pub fn wait_timeout(&mut self, wait: Duration) -> Option<Result<T>> {
        match &mut self.pending {
            Pending::Append { receipt, convert, topic, partition } => {
                let outcome = receipt.wait_timeout(wait)?;
                Some(finish(outcome, *convert, topic, partition))
            }
            Pending::Buffered { appended, convert, partition } => Some(Ok(convert(*appended, *partition))),
            Pending::Flush { flush, value } => Some(flush.run().map(|()| value())),
            Pending::Done { outcome, value } => Some(outcome.clone().map(|()| value())),
        }
    }

    #[inline(always)]
    pub(crate) fn append(
        receipt: tailwater_log::Receipt,
        convert: fn(tailwater_log::Appended, PartitionId) -> T,
        topic: &Arc<Topic>,
        partition: &Arc<LazyLog>,
    ) -> Self {
        let (topic, partition) = (Arc::clone(topic), Arc::clone(partition));
        Self { pending: Pending::Append { receipt, convert, topic, partition } }
    }
}

impl Receipt<Appended> {
    /// The receipt of published messages.
    #[inline(always)]
    pub(crate) fn appended(
        receipt: tailwater_log::Receipt,
        topic: &Arc<Topic>,
        partition: &Arc<LazyLog>,
    ) -> Self {
        Self::append(receipt, told, topic, partition)
    }

    /// The receipt of messages that are `Buffered`: it is complete from the start.
    #[inline(always)]
    pub(crate) fn buffered(appended: tailwater_log::Appended, partition: PartitionId) -> Self {
        Self { pending: Pending::Buffered { appended, convert: told, partition } }
    }
}

fn told(appended: tailwater_log::Appended, partition: PartitionId) -> Appended {
    Appended { partition, offset: appended.offsets.start, epoch: appended.epoch }
}

impl Receipt<()> {
    /// The receipt of a flush.
    pub(crate) fn flush(flush: Arc<Flush>) -> Self {
        Self { pending: Pending::Flush { flush, value: || () } }
    }

    /// The receipt of a step that is over.
    pub(crate) fn done(outcome: Result<()>) -> Self {
        Self { pending: Pending::Done { outcome, value: || () } }
    }
}

fn finish<T>(
    outcome: tailwater_log::Result<tailwater_log::Appended>,
    convert: fn(tailwater_log::Appended, PartitionId) -> T,
    topic: &Topic,
    partition: &LazyLog,
) -> Result<T> {
    match outcome {
        Ok(appended) => Ok(convert(appended, partition.place().partition)),
        Err(error) => Err(topic.explain(error, partition.place())),
    }
}

impl<T> Future for Receipt<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        match &mut self.pending {
            Pending::Append { receipt, convert, topic, partition } => {
                Pin::new(receipt).poll(context).map(|outcome| finish(outcome, *convert, topic, partition))
            }
            Pending::Buffered { appended, convert, partition } => {
                Poll::Ready(Ok(convert(*appended, *partition)))
            }
            Pending::Flush { flush, value } => flush.poll(context).map(|outcome| outcome.map(|()| value())),
            Pending::Done { outcome, value } => Poll::Ready(outcome.clone().map(|()| value())),
        }
    }
}

impl<T> fmt::Debug for Receipt<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pending {
            Pending::Append { receipt, partition, .. } => f
                .debug_struct("Receipt")
                .field("partition", &format_args!("{}", partition.place()))
                .field("durability", &receipt.durability())
                .finish_non_exhaustive(),
            Pending::Buffered { partition, .. } => f
                .debug_struct("Receipt")
                .field("partition", partition)
                .field("durability", &Durability::Buffered)
                .finish_non_exhaustive(),
            Pending::Flush { .. } | Pending::Done { .. } => f.debug_struct("Receipt").finish_non_exhaustive(),
        }
    }
}

const _: () = {
    const fn can_be_sent<T: Send + Sync + Unpin + 'static>() {}
    can_be_sent::<Receipt<Appended>>();
    can_be_sent::<Receipt<()>>();
};
