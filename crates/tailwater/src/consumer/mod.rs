//! Subscribing: consumers of a group, and readers without one.

mod assigned;
mod cursor;
mod event;
mod interrupter;
mod listener;
mod membership;
mod open_partition;
mod options;
mod records;
mod selection;
mod state;
#[cfg(feature = "async")]
mod stream;

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater_log::Signal;

pub use cursor::{Cursor, ParseCursorError, Reset, SeekTo};
pub use event::{Event, Lag};
pub use interrupter::Interrupter;
pub use listener::{Rebalance, RebalanceListener};
pub(crate) use open_partition::OpenPartition;
pub use options::{AutoCommit, ConsumerOptions, OnDivergence, OnExpired, OnGap};
pub use records::{OwnedHeader, OwnedRecord, Record, Records};
use selection::Selection;
use state::State;

use crate::broker::Inner;
use crate::receipt::Receipt;
use crate::{Error, Result, TopicPartition};

/// How long a consumer of a broker that is attached read-only waits between two looks at the files: there is nobody in
/// this process who could wake it.
const ATTACHED_LOOK: Duration = Duration::from_millis(50);

/// Reads topics: as the member of a group, which remembers what was done, or as a reader, which remembers nothing.
///
/// `Send`, not `Sync`: one thread at a time. What [`poll`](Consumer::poll) returned is done when it is
/// [committed](Consumer::commit); a consumer of the same group that comes later, in another process or after a crash,
/// goes on behind it. What was not committed is read again, so each record is read at least once by each group.
///
/// Dropping a consumer commits nothing and waits for nothing.
///
/// | | |
/// |---|---|
/// | Order | within a partition, that of the offsets; partitions take turns |
/// | Start | the committed offset; without one, where [`ConsumerOptions::reset`] says |
/// | What can be read | what is durable; on a topic that is not durable, what is written |
/// | Waiting | a poll sleeps until there is something, and costs nothing meanwhile |
/// | In tasks | with the feature `async` it is a `Stream` of what polls return |
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tailwater::{Broker, TopicConfig};
///
/// let broker = Broker::in_memory()?;
/// broker.create_topic("orders", &TopicConfig::new())?;
/// let orders = broker.producer("orders")?;
/// orders.send("two espressos")?.wait()?;
///
/// let mut billing = broker.consumer("billing").subscribe(&["orders"])?;
/// let records = billing.poll(Duration::from_secs(10))?;
/// for record in records.iter() {
///     assert_eq!(record.value(), Some(&b"two espressos"[..]));
/// }
/// billing.commit().wait()?;
/// drop(billing);
///
/// // Another member of the group has nothing left to do; another group has all of it.
/// let mut billing = broker.consumer("billing").subscribe(&["orders"])?;
/// assert!(billing.poll(Duration::ZERO)?.is_empty());
/// let mut kitchen = broker.consumer("kitchen").subscribe(&["orders"])?;
/// assert_eq!(kitchen.poll(Duration::from_secs(10))?.count(), 1);
/// # Ok::<(), tailwater::Error>(())
/// ```
pub struct Consumer {
    broker: Arc<Inner>,
    signal: Arc<Signal>,
    interrupter: Interrupter,
    /// In a cell since `commit` takes `&self`, so that it can be called while records are at hand.
    state: RefCell<State>,
    #[cfg(feature = "async")]
    stream: stream::StreamState,
}

impl Consumer {
    pub(super) fn subscribe<T: AsRef<str>>(options: ConsumerOptions, topics: &[T]) -> Result<Self> {
        let mut chosen = Selection::default();
        for name in topics {
            chosen.add_topic(options.broker.topic(name.as_ref())?);
        }
        Self::new(options, chosen, true)
    }

    pub(super) fn subscribe_matching<T: AsRef<str>>(
        options: ConsumerOptions,
        patterns: &[T],
    ) -> Result<Self> {
        options.broker.refresh_if_attached()?;
        let mut chosen = Selection::default();
        for pattern in patterns {
            chosen.add_pattern(pattern.as_ref())?;
        }
        Self::new(options, chosen, true)
    }

    pub(super) fn assign(options: ConsumerOptions, partitions: &[TopicPartition]) -> Result<Self> {
        let mut chosen = Selection::default();
        for partition in partitions {
            let topic = options.broker.topic(&partition.topic)?;
            topic.partition(partition.partition)?;
            chosen.add_partition(topic, partition.partition);
        }
        Self::new(options, chosen, false)
    }

    /// `is_shared` says whether a group's partitions are divided among its members.
    fn new(options: ConsumerOptions, chosen: Selection, is_shared: bool) -> Result<Self> {
        options.broker.check_open()?;
        let broker = Arc::clone(&options.broker);
        let signal = Arc::new(Signal::new());
        broker.watch(&signal);
        let state = State::new(options, chosen, is_shared, &signal)?;
        Ok(Self {
            broker,
            interrupter: Interrupter::new(&signal),
            signal,
            state: RefCell::new(state),
            #[cfg(feature = "async")]
            stream: stream::StreamState::default(),
        })
    }

    /// Returns the records that come next, at most `max_records` and about `max_bytes`; waits for the first of them up to
    /// `wait`. Returns nothing when that has passed; [`Duration::ZERO`] does not wait, [`Duration::MAX`] waits for ever.
    ///
    /// What it returned counts as done for the next [`commit`](Consumer::commit).
    ///
    /// # Errors
    ///
    /// - [`Error::Interrupted`] after [`Interrupter::interrupt`]; [`Error::Closed`].
    /// - [`Error::Corrupt`], [`Error::Unsupported`]: at every poll, after the good records before the damage and whenever
    ///   other partitions have nothing, until the consumer seeks past it; `offsets.end` is where reading can go on.
    /// - [`Error::Diverged`] with [`OnDivergence::Error`], [`Error::Gap`] with [`OnGap::Error`], likewise.
    /// - [`Error::FencedMemberEpoch`] if an administrator removed the member; an error of the [`RebalanceListener`].
    /// - [`Error::Io`], and those of opening partitions that were added.
    pub fn poll(&mut self, wait: Duration) -> Result<Records> {
        let deadline = Instant::now().checked_add(wait);
        self.look_again();
        // A first look without arming: as long as there are records, nobody who publishes has to wake this thread.
        if let Some(records) = self.look()? {
            return Ok(records);
        }
        loop {
            self.signal.arm();
            if let Some(records) = self.look()? {
                return Ok(records);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.state.get_mut().end_poll()?;
                return Ok(Records::default());
            }
            self.sleep(deadline);
        }
    }

    /// Has the stream look the next time, also if it was waiting for news.
    fn look_again(&mut self) {
        #[cfg(feature = "async")]
        self.stream.look_again();
    }

    /// What there is now, if there is anything.
    fn look(&mut self) -> Result<Option<Records>> {
        if self.interrupter.take() {
            // It waits no longer: from here on it is looked after, whatever the application does next.
            self.state.get_mut().end_poll()?;
            return Err(Error::Interrupted);
        }
        self.broker.check_open()?;
        let state = self.state.get_mut();
        let looked = state.poll(&self.signal);
        if looked.is_err() {
            // That of the look is the one that tells.
            let _ = state.end_poll();
        }
        looked
    }

    fn sleep(&self, deadline: Option<Instant>) {
        match deadline.into_iter().chain(self.next_look()).min() {
            None => self.signal.wait(),
            Some(until) => drop(self.signal.wait_until(until)),
        }
    }

    /// When the consumer has to look again though nobody wakes it.
    fn next_look(&self) -> Option<Instant> {
        let pause = if self.broker.is_read_only() { Some(ATTACHED_LOOK) } else { self.state.borrow().wait() };
        pause.and_then(|pause| Instant::now().checked_add(pause))
    }

    /// Commits all that [`poll`](Consumer::poll), or the stream, has returned, in all partitions at once: after a crash all of it is
    /// committed or nothing. The receipt completes when that is durable; commits and appends share syncs. If there is
    /// nothing new, it completes when what was committed before is durable.
    ///
    /// On a topic that is not durable the records are made durable first, on this thread.
    ///
    /// # Errors
    ///
    /// The receipt's:
    /// - [`Error::NoGroup`] for a reader.
    /// - [`Error::CommitBeyondDurable`] with [`FetchIsolation::LogEnd`](crate::FetchIsolation::LogEnd): wait for the
    ///   records to be durable.
    /// - [`Error::FencedMemberEpoch`], [`Error::Closed`], [`Error::ReadOnly`], [`Error::Failed`], [`Error::DiskFull`].
    pub fn commit(&self) -> Receipt<()> {
        let mut state = self.state.borrow_mut();
        let commits = state.uncommitted();
        let receipt = state.commit(&commits);
        receipt.unwrap_or_else(|error| refused(&state, error))
    }

    /// Commits these places: each the next one to read in its partition, such as
    /// [`Record::next_cursor`](crate::Record::next_cursor) of a record that is done. All of them or, after a crash, none.
    ///
    /// # Errors
    ///
    /// The receipt's: those of [`commit`](Consumer::commit), and
    /// - [`Error::NotAssigned`] for a partition that this consumer does not read.
    /// - [`Error::CommitBackwards`] below what is committed, unless the consumer has
    ///   [sought](Consumer::seek) in that partition since.
    /// - [`Error::OffsetOutOfRange`] beyond the end of the log.
    pub fn commit_to(&self, cursors: &[Cursor]) -> Receipt<()> {
        let with_metadata: Vec<_> = cursors.iter().map(|cursor| (*cursor, "")).collect();
        self.commit_with_metadata(&with_metadata)
    }

    /// As [`commit_to`](Consumer::commit_to), and keeps a text of at most 4,096 bytes with each place, which
    /// [`Broker::describe_group`](crate::Broker::describe_group) shows.
    ///
    /// # Errors
    ///
    /// As [`commit_to`](Consumer::commit_to); [`Error::MetadataTooLarge`].
    pub fn commit_with_metadata(&self, cursors: &[(Cursor, &str)]) -> Receipt<()> {
        let mut state = self.state.borrow_mut();
        let commits = state.chosen_commits(cursors);
        let receipt = commits.and_then(|commits| state.commit(&commits));
        receipt.unwrap_or_else(|error| refused(&state, error))
    }

    /// Goes to another place in a partition. The next poll reads from there, and the next commit may be an earlier one.
    ///
    /// # Errors
    ///
    /// [`Error::NotAssigned`]; [`Error::OffsetOutOfRange`]; [`Error::ForeignCursor`] for a cursor of another topic or
    /// partition; those of reading, for a time.
    pub fn seek(&mut self, partition: &TopicPartition, to: SeekTo) -> Result<()> {
        self.look_again();
        self.state.get_mut().seek(partition, to)
    }

    /// Stops reading these partitions, until [`resume`](Consumer::resume). They stay assigned.
    ///
    /// # Errors
    ///
    /// [`Error::NotAssigned`]: none of them is paused then.
    pub fn pause(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.state.get_mut().set_paused(partitions, true)
    }

    /// Goes on reading these partitions.
    ///
    /// # Errors
    ///
    /// [`Error::NotAssigned`]: none of them is resumed then.
    pub fn resume(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.look_again();
        self.state.get_mut().set_paused(partitions, false)
    }

    /// The partitions that it reads, paused ones too, ordered.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.state.borrow().assignment()
    }

    /// The group, if this is no reader.
    #[must_use]
    pub fn group(&self) -> Option<String> {
        self.state.borrow().group().map(str::to_owned)
    }

    /// The next place to read in a partition.
    ///
    /// # Errors
    ///
    /// [`Error::NotAssigned`].
    pub fn position(&self, partition: &TopicPartition) -> Result<Cursor> {
        self.state.borrow().position(partition)
    }

    /// What the group has committed in a partition, also when that is not durable yet. `None` for a reader.
    ///
    /// # Errors
    ///
    /// [`Error::NotAssigned`].
    pub fn committed(&self, partition: &TopicPartition) -> Result<Option<Cursor>> {
        self.state.borrow().committed(partition)
    }

    /// How far behind the group's committed offset is in a partition, or a reader's position.
    ///
    /// # Errors
    ///
    /// [`Error::NotAssigned`]; of a broker that is attached read-only, those of looking at the files.
    pub fn lag(&self, partition: &TopicPartition) -> Result<Lag> {
        self.state.borrow().lag(partition)
    }

    /// What ends a poll from another thread.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        self.interrupter.clone()
    }

    /// Leaves the group, after the commits that were made are durable. With [`AutoCommit::OnNextPoll`] commits what polls
    /// have returned first; then a [`RebalanceListener`] may commit. Nothing else is committed.
    ///
    /// # Errors
    ///
    /// Why that commit was refused, the listener's error, or why the commits could not be made durable. The consumer has
    /// left the group all the same.
    pub fn close(self) -> Result<()> {
        self.state.into_inner().close()
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Consumer");
        // A listener that prints its consumer has it lent already.
        if let Ok(state) = self.state.try_borrow() {
            shown.field("group", &state.group()).field("assignment", &state.assignment());
        }
        shown.finish_non_exhaustive()
    }
}

/// The receipt of a commit that was not made.
fn refused(state: &State, error: Error) -> Receipt<()> {
    tracing::warn!(group = state.group(), %error, "a commit was refused");
    Receipt::done(Err(error))
}

const _: () = {
    const fn can_be_sent<T: Send + 'static>() {}
    can_be_sent::<Consumer>();
};
