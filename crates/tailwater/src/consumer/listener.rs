//! What a member of a group is told, and may do, when partitions come and go.

use std::fmt;

use super::state::State;
use super::{Cursor, SeekTo, refused};
use crate::receipt::Receipt;
use crate::{Result, TopicPartition};

/// Is called when a group's partitions are divided anew: [`ConsumerOptions::listener`](super::ConsumerOptions::listener).
///
/// Inside [`poll`](super::Consumer::poll) and [`close`](super::Consumer::close) (or the stream), on the thread that calls
/// it, with no lock held. Dropping a consumer calls nothing. An error is that of the poll or close; what it was about is
/// assigned, or given up, all the same.
///
/// # Examples
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use std::time::Duration;
/// use tailwater::{Broker, Rebalance, RebalanceListener, Result, TopicConfig, TopicPartition};
///
/// /// Keeps a count for each partition, and puts it away when the partition goes.
/// struct Counts(Arc<Mutex<Vec<String>>>);
///
/// impl RebalanceListener for Counts {
///     fn on_assigned(&mut self, _: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
///         self.0.lock().unwrap().extend(partitions.iter().map(|partition| format!("+{partition}")));
///         Ok(())
///     }
///     fn on_revoked(&mut self, member: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
///         // The last commit: whoever gets the partitions goes on behind it.
///         member.commit().wait()?;
///         self.0.lock().unwrap().extend(partitions.iter().map(|partition| format!("-{partition}")));
///         Ok(())
///     }
/// }
///
/// let broker = Broker::in_memory()?;
/// broker.create_topic("orders", &TopicConfig::new().partitions(2))?;
/// let told = Arc::new(Mutex::new(Vec::new()));
/// let mut first = broker.consumer("billing").listener(Counts(told.clone())).subscribe(&["orders"])?;
/// first.poll(Duration::ZERO)?;
/// let second = broker.consumer("billing").subscribe(&["orders"])?;
/// first.poll(Duration::ZERO)?;
/// assert_eq!(*told.lock().unwrap(), ["+orders-0", "+orders-1", "-orders-1"]);
/// assert_eq!(first.assignment().len() + second.assignment().len(), 2);
/// # Ok::<(), tailwater::Error>(())
/// ```
pub trait RebalanceListener: Send {
    /// These partitions are the consumer's from now on. It may [`seek`](Rebalance::seek) before anything is read.
    ///
    /// # Errors
    ///
    /// Any error; the poll answers it.
    fn on_assigned(&mut self, member: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        let _ = (member, partitions);
        Ok(())
    }

    /// These partitions go to another member when this returns, or on close to whoever is there. What was returned and is
    /// not committed may be committed now, and is read again otherwise. Some may have gone already: those of which nothing
    /// was returned that is not committed.
    ///
    /// # Errors
    ///
    /// Any error; the poll or close answers it.
    fn on_revoked(&mut self, member: &mut Rebalance<'_>, partitions: &[TopicPartition]) -> Result<()> {
        let _ = (member, partitions);
        Ok(())
    }

    /// These partitions are another's already, or their topic is gone: nothing can be committed in them. The consumer did
    /// not poll in time, or was slow to give them up.
    fn on_lost(&mut self, partitions: &[TopicPartition]) {
        let _ = partitions;
    }
}

/// The consumer, for its [`RebalanceListener`].
pub struct Rebalance<'c> {
    state: &'c mut State,
}

impl<'c> Rebalance<'c> {
    pub(super) fn new(state: &'c mut State) -> Self {
        Self { state }
    }

    /// As [`Consumer::seek`](super::Consumer::seek).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn seek(&mut self, partition: &TopicPartition, to: SeekTo) -> Result<()> {
        self.state.seek(partition, to)
    }

    /// As [`Consumer::commit`](super::Consumer::commit).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn commit(&mut self) -> Receipt<()> {
        let commits = self.state.uncommitted();
        self.state.commit(&commits).unwrap_or_else(|error| refused(self.state, error))
    }

    /// As [`Consumer::commit_to`](super::Consumer::commit_to).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn commit_to(&mut self, cursors: &[Cursor]) -> Receipt<()> {
        let with_metadata: Vec<_> = cursors.iter().map(|cursor| (*cursor, "")).collect();
        let commits = self.state.chosen_commits(&with_metadata);
        let receipt = commits.and_then(|commits| self.state.commit(&commits));
        receipt.unwrap_or_else(|error| refused(self.state, error))
    }

    /// As [`Consumer::position`](super::Consumer::position).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn position(&self, partition: &TopicPartition) -> Result<Cursor> {
        self.state.position(partition)
    }

    /// As [`Consumer::committed`](super::Consumer::committed).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn committed(&self, partition: &TopicPartition) -> Result<Option<Cursor>> {
        self.state.committed(partition)
    }

    /// The partitions that it reads, ordered: those too that it is to give up.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.state.assignment()
    }
}

impl fmt::Debug for Rebalance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rebalance").field("assignment", &self.assignment()).finish()
    }
}
