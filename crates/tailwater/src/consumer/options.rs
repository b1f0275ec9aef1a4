//! How to make a consumer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tailwater_groups::coordinator::DEFAULT_REVOKE_TIMEOUT_MS;
use tailwater_groups::coordinator::assignor::Assignor;
use tailwater_log::FetchIsolation;

use super::open_partition::whole_ms;
use super::{Consumer, RebalanceListener, Reset};
use crate::broker::Inner;
use crate::{Result, TopicPartition};

/// What happens when the log has lost records that a position lies behind: after a truncation, after a crash on a topic
/// that is not durable, after a backup was restored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum OnDivergence {
    /// Reading goes on where the histories part, and [`Event::Diverged`](crate::Event::Diverged) says so.
    #[default]
    EpochEnd,
    /// Polls answer [`Error::Diverged`](crate::Error::Diverged) until the consumer is told where to
    /// [`seek`](Consumer::seek).
    Error,
}

/// What happens where records were removed before they were read, by retention or by hand, or were lost to a repair.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum OnGap {
    /// Reading goes on behind them, and [`Event::Gap`](crate::Event::Gap) says so, once.
    #[default]
    Event,
    /// Polls answer [`Error::Gap`](crate::Error::Gap), whenever other partitions have nothing, until the consumer is told
    /// where to [`seek`](Consumer::seek).
    Error,
}

/// What happens with records whose time to live ([`Message::ttl`](crate::Message::ttl)) is over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum OnExpired {
    /// They are passed over, and nothing tells so: the position moves behind them, and a commit of what was returned includes
    /// them.
    #[default]
    Skip,
    /// They are returned like all others, as long as they are there.
    Return,
}

/// Whether polls commit what was returned before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum AutoCommit {
    /// The application commits.
    #[default]
    Off,
    /// Each poll commits what earlier ones have returned, and so does [`close`](Consumer::close): what was returned is done
    /// when the next poll is made. The commit is not waited for; one that is refused is the poll's error, and what of it
    /// is still the member's is committed with what is returned next, or by `close`. Dropping the consumer commits nothing.
    /// There is no timer.
    OnNextPoll,
}

/// How to make a consumer: [`Broker::consumer`](crate::Broker::consumer) for a group,
/// [`Broker::reader`](crate::Broker::reader) without one.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tailwater::{Broker, Reset, TopicConfig};
///
/// let broker = Broker::in_memory()?;
/// broker.create_topic("orders", &TopicConfig::new())?;
/// let orders = broker.producer("orders")?;
/// orders.publish("before")?;
///
/// // A group that has never been here starts at the end, and from then on where it stopped.
/// let mut billing = broker.consumer("billing").reset(Reset::Latest).max_records(100).subscribe(&["orders"])?;
/// orders.publish("after")?;
/// let records = billing.poll(Duration::from_secs(10))?;
/// assert_eq!(records.iter().next().and_then(|record| record.value()), Some(&b"after"[..]));
/// # Ok::<(), tailwater::Error>(())
/// ```
#[must_use = "nothing is read before `subscribe` or `assign`"]
pub struct ConsumerOptions {
    pub(super) broker: Arc<Inner>,
    pub(super) group: Option<String>,
    pub(super) reset: Reset,
    pub(super) max_records: u32,
    pub(super) max_bytes: u64,
    pub(super) on_divergence: OnDivergence,
    pub(super) on_gap: OnGap,
    pub(super) on_expired: OnExpired,
    pub(super) isolation: FetchIsolation,
    pub(super) member_name: Option<Arc<str>>,
    pub(super) assignor: Assignor,
    pub(super) revoke_timeout_ms: u64,
    pub(super) max_poll_interval_ms: Option<u64>,
    pub(super) auto_commit: AutoCommit,
    pub(super) is_ephemeral: bool,
    pub(super) listener: Option<Box<dyn RebalanceListener>>,
}

impl fmt::Debug for ConsumerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerOptions")
            .field("group", &self.group)
            .field("reset", &self.reset)
            .field("member_name", &self.member_name)
            .field("assignor", &self.assignor)
            .field("auto_commit", &self.auto_commit)
            .field("is_ephemeral", &self.is_ephemeral)
            .finish_non_exhaustive()
    }
}

impl ConsumerOptions {
    pub(crate) fn new(broker: Arc<Inner>, group: Option<String>) -> Self {
        Self {
            broker,
            group,
            reset: Reset::default(),
            max_records: 1_000,
            max_bytes: 8 << 20,
            on_divergence: OnDivergence::default(),
            on_gap: OnGap::default(),
            on_expired: OnExpired::default(),
            isolation: FetchIsolation::default(),
            member_name: None,
            assignor: Assignor::default(),
            revoke_timeout_ms: DEFAULT_REVOKE_TIMEOUT_MS,
            max_poll_interval_ms: None,
            auto_commit: AutoCommit::default(),
            is_ephemeral: false,
            listener: None,
        }
    }

    /// Sets where a group starts in a partition in which it has no committed offset, and a reader in any: default
    /// [`Reset::Earliest`].
    pub fn reset(mut self, reset: Reset) -> Self {
        self.reset = reset;
        self
    }

    /// Sets how many records a poll returns at most: default 1,000, at least 1.
    pub fn max_records(mut self, count: u32) -> Self {
        self.max_records = count.max(1);
        self
    }

    /// Sets how many bytes of batches a poll returns at most: default 8 MiB. One batch is returned however large it is.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets what happens when records that a position lies behind were lost: default [`OnDivergence::EpochEnd`].
    pub fn on_divergence(mut self, policy: OnDivergence) -> Self {
        self.on_divergence = policy;
        self
    }

    /// Sets what happens where records were removed before they were read: default [`OnGap::Event`].
    pub fn on_gap(mut self, policy: OnGap) -> Self {
        self.on_gap = policy;
        self
    }

    /// Sets what happens with records whose time to live is over when they are fetched: default [`OnExpired::Skip`].
    pub fn on_expired(mut self, policy: OnExpired) -> Self {
        self.on_expired = policy;
        self
    }

    /// Sets how far it reads: default [`FetchIsolation::Visible`], what the topic's durability shows. With
    /// [`FetchIsolation::LogEnd`] records are returned that a crash can still take back; they cannot be committed before
    /// they are durable.
    pub fn isolation(mut self, isolation: FetchIsolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Names the member of a group: the members are given partitions in the order of their names. Those without a name come
    /// after them, in the order in which they joined.
    ///
    /// So the same names get the same partitions when all start again; with [`Assignor::Uniform`], where members keep what
    /// they have as others come, if they join in the same order too.
    pub fn member_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.member_name = Some(name.into());
        self
    }

    /// Sets how a group divides its partitions: default [`Assignor::Uniform`]. The same for all members.
    pub fn assignor(mut self, assignor: Assignor) -> Self {
        self.assignor = assignor;
        self
    }

    /// Sets how long this member may keep a partition that has become another's, if it was returned records of it that are
    /// not committed: default 30 seconds. Then it is fenced there, its commits in that partition are refused, and the
    /// other reads them again. Without such records a partition goes at once. Counted in milliseconds.
    pub fn revoke_timeout(mut self, timeout: Duration) -> Self {
        self.revoke_timeout_ms = whole_ms(timeout);
        self
    }

    /// Sets after how long without a poll this member is taken for stuck and loses all its partitions to the others; its
    /// next poll joins again. Waiting in a poll does not count. Default never. Counted in milliseconds, at least 1.
    pub fn max_poll_interval(mut self, interval: Duration) -> Self {
        self.max_poll_interval_ms = Some(whole_ms(interval).max(1));
        self
    }

    /// Sets whether polls commit: default [`AutoCommit::Off`].
    pub fn auto_commit(mut self, auto_commit: AutoCommit) -> Self {
        self.auto_commit = auto_commit;
        self
    }

    /// Makes the group one that is kept in memory only: it ends with its last member, holds no records, and is in no list
    /// of groups that are kept. What it commits is never durable. For all its members, or none.
    pub fn ephemeral(mut self) -> Self {
        self.is_ephemeral = true;
        self
    }

    /// Has `listener` called when partitions of a group come and go: see [`RebalanceListener`]. Only a consumer that
    /// [subscribes](ConsumerOptions::subscribe) as a member of a group calls it.
    pub fn listener(mut self, listener: impl RebalanceListener + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// Reads all partitions of these topics, also those that are added later. In a group they are divided among its members,
    /// each to one at a time; this member reads those that it is assigned, which changes as others come and go.
    ///
    /// When it returns, the group has a committed offset in each partition that is assigned.
    ///
    /// # Errors
    ///
    /// - [`Error::UnknownTopic`](crate::Error::UnknownTopic), [`Error::NothingToRead`](crate::Error::NothingToRead).
    /// - [`Error::InvalidGroupId`](crate::Error::InvalidGroupId),
    ///   [`Error::GroupKindMismatch`](crate::Error::GroupKindMismatch),
    ///   [`Error::GroupLifetimeMismatch`](crate::Error::GroupLifetimeMismatch).
    /// - [`Error::GroupInUse`](crate::Error::GroupInUse) while a consumer has the group for itself.
    /// - [`Error::DuplicateMemberName`](crate::Error::DuplicateMemberName),
    ///   [`Error::AssignorMismatch`](crate::Error::AssignorMismatch).
    /// - [`Error::NoCommittedOffset`](crate::Error::NoCommittedOffset) with [`Reset::Error`],
    ///   [`Error::OffsetOutOfRange`](crate::Error::OffsetOutOfRange) with [`Reset::Offset`].
    /// - [`Error::ReadOnly`](crate::Error::ReadOnly) for a group of a broker that is attached read-only,
    ///   [`Error::Closed`](crate::Error::Closed), and those of opening a partition.
    pub fn subscribe<T: AsRef<str>>(self, topics: &[T]) -> Result<Consumer> {
        Consumer::subscribe(self, topics)
    }

    /// Reads all topics whose names match one of these patterns, those too that are created later, from their start. In a
    /// group as [`subscribe`](ConsumerOptions::subscribe). There need be none yet.
    ///
    /// `*` is any characters, `?` any one, `[ab]`, `[a-c]`, `[!a]` one of a set. Compared without case.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](ConsumerOptions::subscribe), and
    /// [`Error::InvalidTopicPattern`](crate::Error::InvalidTopicPattern).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use tailwater::{Broker, TopicConfig};
    ///
    /// let broker = Broker::in_memory()?;
    /// let mut audit = broker.consumer("audit").subscribe_matching(&["orders.*"])?;
    /// broker.create_topic("orders.eu", &TopicConfig::new())?;
    /// broker.producer("orders.eu")?.publish("two espressos")?;
    /// assert_eq!(audit.poll(Duration::from_secs(10))?.count(), 1);
    /// # Ok::<(), tailwater::Error>(())
    /// ```
    pub fn subscribe_matching<T: AsRef<str>>(self, patterns: &[T]) -> Result<Consumer> {
        Consumer::subscribe_matching(self, patterns)
    }

    /// Reads these partitions and no others. A group is then used by this consumer alone.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](ConsumerOptions::subscribe), and [`Error::GroupInUse`](crate::Error::GroupInUse) if the group has a
    /// member already; [`Error::UnknownPartition`](crate::Error::UnknownPartition).
    pub fn assign(self, partitions: &[TopicPartition]) -> Result<Consumer> {
        Consumer::assign(self, partitions)
    }
}
