//! Publishing.

mod lag_gate;
mod lag_limit;
mod message;
mod options;
mod send_async;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use lag_gate::LagGate;
pub use lag_limit::{LagLimit, LagUnit};
pub use message::Message;
pub use options::ProducerOptions;
pub use send_async::SendAsync;

use tailwater_log::{Durability, Log, NewRecord, PartitionId, Signal, Staged, WhenFull};

use crate::broker::{Inner, LazyLog, Topic};
use crate::partitioner::{StickyPartitioner, partition_for_key};
use crate::receipt::{Appended, Receipt};
use crate::{Error, Result};

/// Publishes to one topic.
///
/// `Clone + Send + Sync`; clones share their choice of partitions. Bound to the topic, not to its name: if the topic is
/// deleted, a producer answers [`Error::UnknownTopic`], also when another of that name exists by then.
///
/// | Call | Returns when | For |
/// |---|---|---|
/// | [`publish`](Producer::publish) | the message is durable | one message at a time; threads that publish together share syncs |
/// | [`send`](Producer::send) | it is in memory and in order | many messages, one wait at the end |
/// | [`try_send`](Producer::try_send) | the same, or there is no room | those who must not wait |
/// | [`send_async`](Producer::send_async) | the same, as a future | tasks |
///
/// # Examples
///
/// ```
/// use tailwater::{Broker, TopicConfig};
///
/// let broker = Broker::in_memory()?;
/// broker.create_topic("orders", &TopicConfig::new())?;
/// let orders = broker.producer("orders")?;
///
/// let first = orders.send("an espresso")?;
/// let second = orders.send("a flat white")?;
/// assert!(first.wait()?.offset < second.wait()?.offset);
/// # Ok::<(), tailwater::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Producer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    broker: Arc<Inner>,
    topic: Arc<Topic>,
    options: ProducerOptions,
    /// Whether its options leave appends as they are: the usual case, asked for with each of them.
    is_plain: bool,
    gate: Option<Arc<LagGate>>,
    sticky: StickyPartitioner,
}

/// What an append does when there is no room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Wait,
    Fail,
}

impl Producer {
    pub(crate) fn new(broker: Arc<Inner>, topic: &str, options: ProducerOptions) -> Result<Self> {
        let topic = broker.topic(topic)?;
        if broker.is_read_only() {
            return Err(Error::ReadOnly);
        }
        if let Some(compression) = options.compression.filter(|compression| !compression.is_supported()) {
            return Err(Error::UnsupportedCompression { compression });
        }
        let seed = broker.random();
        let gate = match &options.lag_limit {
            None => None,
            Some(limit) => {
                // What is wrong with the groups is told here, and not when something is published.
                broker.groups()?;
                Some(topic.gate(|gate| gate.is_for(limit), || LagGate::new(limit))?)
            }
        };
        let is_plain = options.is_plain();
        let shared = Shared { broker, topic, options, is_plain, gate, sticky: StickyPartitioner::new(seed) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Publishes a message and waits until it is as durable as this producer promises.
    ///
    /// # Errors
    ///
    /// Those of [`Producer::send`] and [`Receipt::wait`].
    pub fn publish<'m>(&self, message: impl Into<Message<'m>>) -> Result<Appended> {
        let message = message.into();
        // This thread sees to the sync itself.
        if message.expires() {
            return self.append_expiring(&message, Room::Wait, false)?.wait();
        }
        self.route(&message, |partition| self.append(partition, &[message.to_record()], Room::Wait, false))?
            .wait()
    }

    /// Hands a message over, and waits for room if need be: at most `max_block`. Messages of one thread to one partition
    /// keep their order.
    ///
    /// # Errors
    ///
    /// Nothing was published after any of these:
    /// - [`Error::StagingFull`], [`Error::DiskFull`]: try again later.
    /// - [`Error::GroupLagging`], if the producer has a [`LagLimit`]: try again when the group has committed more.
    /// - [`Error::RecordTooLarge`], [`Error::InvalidBatch`], [`Error::UnknownPartition`].
    /// - [`Error::UnsupportedCompression`], if the topic's compression is not in this build.
    /// - [`Error::UnknownTopic`], [`Error::Closed`]: the producer is of no use any more.
    /// - [`Error::Failed`], [`Error::Corrupt`]: the partition takes no messages.
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> Result<Receipt<Appended>> {
        let message = message.into();
        if message.expires() {
            return self.append_expiring(&message, Room::Wait, true);
        }
        self.route(&message, |partition| self.send_to(partition, &[message.to_record()], Room::Wait))
    }

    /// As [`Producer::send`], but answers [`Error::StagingFull`] rather than wait for room.
    ///
    /// # Errors
    ///
    /// As [`Producer::send`].
    pub fn try_send<'m>(&self, message: impl Into<Message<'m>>) -> Result<Receipt<Appended>> {
        let message = message.into();
        if message.expires() {
            return self.append_expiring(&message, Room::Fail, true);
        }
        self.route(&message, |partition| self.send_to(partition, &[message.to_record()], Room::Fail))
    }

    /// As [`Producer::send`] in a task: a future of the receipt, which waits for room without holding a thread up, for as
    /// long as it takes. Needs no particular runtime.
    pub fn send_async<'p, 'm>(&'p self, message: impl Into<Message<'m>>) -> SendAsync<'p, 'm> {
        SendAsync::new(self, message.into())
    }

    /// Hands messages over as one batch: after a crash all of them are there or none. The receipt tells the offset of the
    /// first; the others follow it. The messages' own choice of a partition is not looked at.
    ///
    /// # Errors
    ///
    /// As [`Producer::send`]; [`Error::InvalidBatch`] if there are no messages.
    pub fn send_batch(&self, partition: PartitionId, messages: &[Message<'_>]) -> Result<Receipt<Appended>> {
        let partition = self.shared.topic.partition(partition)?;
        Message::with_records(messages, |records| self.send_to(&partition, records, Room::Wait))
    }

    /// Makes durable everything that was sent to the topic before this call, whatever its producer's durability.
    pub fn flush(&self) -> Receipt<()> {
        let partitions = self.shared.topic.partitions();
        let unsynced = partitions.iter().filter(|partition| {
            // One whose state cannot be told is flushed too, so that the receipt tells its error.
            partition.opened().is_some_and(|log| log.has_unsynced() || log.is_failed())
        });
        Receipt::flush(self.shared.broker.flush(unsynced.cloned().collect()))
    }

    /// The name of the topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.shared.topic.name
    }

    /// Does something with the partition that a message goes to.
    #[inline(always)]
    fn route<T>(&self, message: &Message<'_>, act: impl FnOnce(&Arc<LazyLog>) -> Result<T>) -> Result<T> {
        let choose = |partition_count| match (message.chosen_partition(), message.key_bytes()) {
            (Some(chosen), _) => chosen,
            (None, Some(key)) => partition_for_key(key, partition_count),
            (None, None) => self.shared.sticky.next(message.size_bytes(), partition_count),
        };
        self.shared.topic.with_partition(choose, act)
    }

    /// Appends a message with a time to live. On its own, so that it costs those without nothing.
    #[cold]
    #[inline(never)]
    fn append_expiring(
        &self,
        message: &Message<'_>,
        room: Room,
        is_synced_by_others: bool,
    ) -> Result<Receipt<Appended>> {
        Message::with_records(std::slice::from_ref(message), |records| {
            self.route(message, |partition| self.append(partition, records, room, is_synced_by_others))
        })
    }

    #[inline(always)]
    fn send_to(
        &self,
        partition: &Arc<LazyLog>,
        records: &[NewRecord<'_>],
        room: Room,
    ) -> Result<Receipt<Appended>> {
        // Nobody waits for it yet, and perhaps only a task ever will.
        self.append(partition, records, room, true)
    }

    /// Appends records, and has another thread sync them, where they are to be synced, if `is_synced_by_others`.
    ///
    /// All of it in one piece of code: a receipt that is handed on from call to call costs more than the append.
    #[inline(always)]
    fn append(
        &self,
        partition: &Arc<LazyLog>,
        records: &[NewRecord<'_>],
        room: Room,
        is_synced_by_others: bool,
    ) -> Result<Receipt<Appended>> {
        let Shared { broker, topic, is_plain, gate, .. } = &*self.shared;
        broker.check_open()?;
        if let Some(gate) = gate {
            self.admit(gate, records, room)?;
        }
        topic.with_log(partition, |log| {
            let staged = match (is_plain, room) {
                (true, Room::Wait) => log.append_staged(records, WhenFull::Wait),
                (true, Room::Fail) => log.append_staged(records, WhenFull::Fail),
                (false, room) => self.append_as_optioned(log, records, room),
            };
            match staged {
                Ok(staged) => Ok(self.acknowledge(staged, partition, log, is_synced_by_others)),
                Err(error) => self.append_after(*error, partition, log, records, room, is_synced_by_others),
            }
        })
    }

    /// The receipt of what was staged. Has seen to what that makes due.
    #[inline(always)]
    fn acknowledge(
        &self,
        staged: Staged,
        partition: &Arc<LazyLog>,
        log: &Log,
        is_synced_by_others: bool,
    ) -> Receipt<Appended> {
        let Shared { broker, topic, options, .. } = &*self.shared;
        broker.queues().note_activity(partition);
        let durability = options.durability.unwrap_or(staged.durability());
        if durability == Durability::Buffered {
            return Receipt::buffered(staged.appended(), partition.place().partition);
        }
        if is_synced_by_others && durability == Durability::Durable {
            broker.queues().request_sync(partition);
        }
        Receipt::appended(log.receipt_of(staged, Some(durability)), topic, partition)
    }

    /// Makes the space that an append was refused for, and tries again.
    #[cold]
    #[inline(never)]
    fn append_after(
        &self,
        error: tailwater_log::Error,
        partition: &Arc<LazyLog>,
        log: &Log,
        records: &[NewRecord<'_>],
        room: Room,
        is_synced_by_others: bool,
    ) -> Result<Receipt<Appended>> {
        let Shared { broker, topic, .. } = &*self.shared;
        let staged = broker.with_space(topic, partition, log, Err(error), || {
            self.append_as_optioned(log, records, room).map_err(|error| *error)
        })?;
        Ok(self.acknowledge(staged, partition, log, is_synced_by_others))
    }

    /// Waits, if that was asked for, until records may be sent without leaving a group too far behind.
    #[inline(never)]
    fn admit(&self, gate: &LagGate, records: &[NewRecord<'_>], room: Room) -> Result<()> {
        let Shared { broker, topic, options, .. } = &*self.shared;
        let refused = match gate.admit(broker, topic, records) {
            Err(error @ Error::GroupLagging { .. }) if room == Room::Wait && self.waits_for_group() => error,
            admitted => return admitted,
        };
        let max_block = match options.max_block {
            Some(max_block) => max_block,
            None => Duration::from_millis(topic.config().to_log_config()?.max_block_ms),
        };
        let deadline = Instant::now().checked_add(max_block);
        let signal = Arc::new(Signal::new());
        broker.watch(&signal);
        loop {
            signal.arm();
            broker.progress().watch(&signal);
            broker.check_open()?;
            if topic.is_deleted() {
                return Err(topic.unknown());
            }
            match gate.admit(broker, topic, records) {
                Err(Error::GroupLagging { .. }) => {}
                admitted => return admitted,
            }
            match deadline {
                None => signal.wait(),
                Some(deadline) if signal.wait_until(deadline) => {}
                Some(_) => return Err(refused),
            }
        }
    }

    /// Whether a group that is behind is waited for.
    fn waits_for_group(&self) -> bool {
        self.shared.options.lag_limit.as_ref().is_some_and(|limit| limit.waits)
    }

    /// Appends as this producer's options say.
    #[cold]
    fn append_as_optioned(
        &self,
        log: &Log,
        records: &[NewRecord<'_>],
        room: Room,
    ) -> Result<Staged, Box<tailwater_log::Error>> {
        match (room, self.shared.options.max_block) {
            (Room::Wait, Some(_)) => self.append_within(log, records),
            (Room::Wait, None) => self.append_compressed(log, records, WhenFull::Wait),
            (Room::Fail, _) => self.append_compressed(log, records, WhenFull::Fail),
        }
    }

    /// Appends with this producer's own compression, if it has one.
    fn append_compressed(
        &self,
        log: &Log,
        records: &[NewRecord<'_>],
        when_full: WhenFull,
    ) -> Result<Staged, Box<tailwater_log::Error>> {
        match self.shared.options.compression {
            Some(compression) => log.append_staged_with(records, compression, when_full),
            None => log.append_staged(records, when_full),
        }
    }

    /// Appends within this producer's own limit of time, making the room itself.
    fn append_within(
        &self,
        log: &Log,
        records: &[NewRecord<'_>],
    ) -> Result<Staged, Box<tailwater_log::Error>> {
        let options = &self.shared.options;
        let deadline = options.max_block.and_then(|wait| Instant::now().checked_add(wait));
        let mut has_written = false;
        loop {
            match self.append_compressed(log, records, WhenFull::Fail) {
                Err(error)
                    if matches!(*error, tailwater_log::Error::StagingFull { .. })
                        && deadline.is_none_or(|deadline| Instant::now() < deadline) =>
                {
                    // A write makes room, unless a roll waits for a sync.
                    if has_written {
                        log.sync()?;
                    } else {
                        log.write_staged()?;
                    }
                    has_written = !has_written;
                }
                appended => return appended,
            }
        }
    }
}

const _: () = {
    const fn is_shared<T: Clone + Send + Sync + 'static>() {}
    is_shared::<Producer>();
};
