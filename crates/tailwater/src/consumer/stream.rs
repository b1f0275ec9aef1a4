//! A consumer in a task: the records as a stream.
//!
//! - The position moves in the same step in which records are returned. A future that is dropped while it waits has taken
//!   nothing.
//! - No task waits without somebody who wakes it: the signal was armed before the look that found nothing, or an alarm is
//!   set besides.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;
use futures_core::stream::FusedStream;

use super::{Consumer, Records};
use crate::{Error, Result};

/// Time after which it is looked again whether an error has passed that nobody would tell the end of.
const ERROR_LOOK: Duration = Duration::from_secs(1);

/// After how many items that were there at once the others of the thread get a turn.
const TURN_ITEMS: u32 = 32;

/// How far the stream of a consumer is.
#[derive(Debug, Default)]
pub(super) struct StreamState {
    /// Whether there is nothing to be had before the signal has news: it was armed, then looked.
    is_waiting: bool,
    /// Whether an error was told before it began to wait, and nobody knows yet that it waits.
    is_unnoted: bool,
    /// Whether the broker was found closed, and that was told.
    is_over: bool,
    /// How many items were there at once, one after another.
    items_at_once: u32,
}

impl StreamState {
    /// Has the next poll look, whether there is news or not.
    pub(super) fn look_again(&mut self) {
        self.is_waiting = false;
    }
}

/// The records that come next, as [`poll`](Consumer::poll) returns them; never an empty set. Needs the feature `async`,
/// and no particular runtime.
///
/// - What the stream returned counts as done for the next [`commit`](Consumer::commit), which can be called and awaited in
///   the loop. Streaming and polling can take turns.
/// - **Cancellation**: a future of the next item that is dropped, such as by `select!`, has taken nothing. Dropping the
///   stream commits nothing, as ever.
/// - **Waiting** costs nothing: the task is woken when there is something to read, when the broker is closed, and by an
///   [`Interrupter`](super::Interrupter). A consumer of a broker that is attached read-only is woken by a thread of the
///   broker's, which looks every 50 milliseconds as long as some task waits.
/// - **Reading** happens in the task: it copies nothing and seldom waits for the disk, but for what is in no cache. So does
///   taking over a partition that was added, which is opened, and in a group waits for one sync.
/// - **Errors** are items and do not end the stream. One that lasts is told once, and then again when there is news and at
///   most every second, so a loop that only logs errors does not spin; [`seek`](Consumer::seek) goes on at once. Damage
///   is told when there is news only.
/// - **End**: [`Error::Closed`], then `None`. [`Error::Interrupted`] is an item like other errors.
/// - A task that finds 32 items at once lets others of its thread on.
///
/// # Examples
///
/// ```
/// # fn block_on<F: Future>(future: F) -> F::Output { smol::block_on(future) }
/// use futures_lite::StreamExt;
/// use tailwater::{Broker, Error, TopicConfig};
///
/// # block_on(async {
/// let broker = Broker::in_memory()?;
/// broker.create_topic("orders", &TopicConfig::new())?;
/// broker.create_topic("mails", &TopicConfig::new())?;
/// let (orders, mails) = (broker.producer("orders")?, broker.producer("mails")?);
/// orders.send_async("two espressos").await?.await?;
///
/// let mut billing = broker.consumer("billing").subscribe(&["orders"])?;
/// while let Some(records) = billing.next().await {
///     let records = match records {
///         Err(Error::Closed) => break,
///         records => records?,
///     };
///     for record in records.iter() {
///         // Sent and, in one go with all others, durable.
///         mails.send_async(record.value().unwrap_or_default()).await?.await?;
///     }
///     billing.commit().await?;
/// #   broker.close()?;
/// }
/// # Ok::<(), Error>(())
/// # })?;
/// # Ok::<(), Error>(())
/// ```
#[cfg_attr(docsrs, doc(cfg(feature = "async")))]
impl Stream for Consumer {
    type Item = Result<Records>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.stream.is_over {
            return Poll::Ready(None);
        }
        if this.stream.is_waiting {
            if this.signal.poll_news(context).is_pending() {
                if std::mem::take(&mut this.stream.is_unnoted) {
                    this.set_alarm_of_group()?;
                }
                return Poll::Pending;
            }
            this.stream.is_waiting = false;
        }
        this.stream.is_unnoted = false;
        if this.stream.items_at_once >= TURN_ITEMS {
            this.stream.items_at_once = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let item = std::task::ready!(this.poll_item(context));
        this.stream.items_at_once += 1;
        this.stream.is_over = matches!(item, Err(Error::Closed));
        Poll::Ready(Some(item))
    }
}

impl FusedStream for Consumer {
    /// Whether the stream has told that the broker is closed, and so has ended.
    fn is_terminated(&self) -> bool {
        self.stream.is_over
    }
}

impl Consumer {
    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Result<Records>> {
        // A first look without arming, as in `poll`.
        match self.look() {
            Ok(Some(records)) => return Poll::Ready(Ok(records)),
            Err(error @ (Error::Closed | Error::Interrupted)) => return Poll::Ready(Err(error)),
            // The next look would not find it.
            Err(error) if self.state.get_mut().has_passed() => return Poll::Ready(Err(error)),
            // An error is looked at again with the signal armed: what it waits for must not be missed.
            Ok(None) | Err(_) => {}
        }
        loop {
            self.signal.arm();
            match self.look() {
                Ok(Some(records)) => return Poll::Ready(Ok(records)),
                Ok(None) => {}
                Err(error @ (Error::Closed | Error::Interrupted)) => return Poll::Ready(Err(error)),
                Err(error) if self.state.get_mut().has_passed() => return Poll::Ready(Err(error)),
                Err(error) => {
                    self.stream.is_waiting = true;
                    self.stream.is_unnoted = true;
                    if self.broker.is_read_only() || !lasts(&error) {
                        self.set_alarm(ERROR_LOOK)?;
                    }
                    return Poll::Ready(Err(error));
                }
            }
            if self.signal.poll_news(context).is_pending() {
                self.stream.items_at_once = 0;
                self.set_alarm_of_group()?;
                self.stream.is_waiting = true;
                return Poll::Pending;
            }
        }
    }

    /// Notes that the member waits, and has it woken when it has to look.
    fn set_alarm_of_group(&self) -> Result<()> {
        match self.next_look() {
            Some(look) => self.broker.alarms().set(&self.signal, look),
            None => Ok(()),
        }
    }

    fn set_alarm(&self, wait: Duration) -> Result<()> {
        self.broker.alarms().set(&self.signal, Instant::now() + wait)
    }
}

/// Whether only the consumer, by seeking, or something that is news can end the error.
fn lasts(error: &Error) -> bool {
    matches!(
        error,
        Error::Corrupt(_)
            | Error::Unsupported { .. }
            | Error::Diverged { .. }
            | Error::Gap { .. }
            | Error::Failed { .. }
    )
}
