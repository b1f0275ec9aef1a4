//! Committed positions, and where a reader that has one goes on.

use std::sync::Arc;

use tailwater_log::{LogEpoch, Offset, PartitionIdentity, Timestamp};

/// Longest metadata of a commit, in bytes.
pub const MAX_METADATA_BYTES: usize = 4096;

/// Where a reader of a partition stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Position {
    /// The next offset to read.
    pub offset: Offset,
    /// The log epoch of the record before it, or of the log when the position came from a seek.
    pub epoch: LogEpoch,
}

/// A position that a group has committed in one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Committed {
    /// The position.
    pub position: Position,
    /// What the committer wanted to be kept with it; often empty.
    pub metadata: Arc<str>,
    /// When it was committed.
    pub committed_at: Timestamp,
    /// Where in the groups log it was appended: it is durable when the log's durable offset is beyond that.
    pub log_offset: Offset,
}

/// A position to commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Commit<'c> {
    /// The partition.
    pub partition: PartitionIdentity,
    /// The position in it.
    pub position: Position,
    /// Text to keep with it, at most [`MAX_METADATA_BYTES`] long.
    pub metadata: &'c str,
    /// Whether it may be below what is committed: true where the reader has sought since its last commit.
    pub may_go_back: bool,
}

impl Commit<'_> {
    /// A commit of `position` without metadata that may not go back.
    #[must_use]
    pub fn new(partition: PartitionIdentity, position: Position) -> Self {
        Self { partition, position, metadata: "", may_go_back: false }
    }
}

/// Where a reader goes on: see [`resume`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Resumption {
    /// At its position.
    At(Position),
    /// The records at its position were removed: it goes on at `to`, having missed those in `[from, to)`.
    Gap {
        /// Its position's offset.
        from: Offset,
        /// The log start offset.
        to: Offset,
    },
    /// The position lies in a history that was given up: its records, from `epoch_end` on, are not those of the log.
    Diverged {
        /// Where its history and the log's part. It may lie below the log start: going on there is then a gap too.
        epoch_end: Offset,
    },
}

/// Decides where a reader with `position` goes on in a log that starts at `log_start_offset`.
///
/// `epoch_end` is where the position's epoch ended in that log, as [`Log::epoch_end`](tailwater_log::Log::epoch_end)
/// tells. A position that has diverged is reported as such also when it lies below the log start.
///
/// # Examples
///
/// ```
/// use tailwater_groups::{Position, Resumption, resume};
/// use tailwater_log::{LogEpoch, Offset};
///
/// let position = Position { offset: Offset::new(40), epoch: LogEpoch::new(1) };
/// assert_eq!(resume(position, Offset::new(10), Offset::new(40)), Resumption::At(position));
/// let (from, to) = (Offset::new(40), Offset::new(50));
/// assert_eq!(resume(position, to, Offset::new(90)), Resumption::Gap { from, to });
/// let epoch_end = Offset::new(39);
/// assert_eq!(resume(position, to, epoch_end), Resumption::Diverged { epoch_end });
/// ```
#[must_use]
pub fn resume(position: Position, log_start_offset: Offset, epoch_end: Offset) -> Resumption {
    if position.offset > epoch_end {
        Resumption::Diverged { epoch_end }
    } else if position.offset < log_start_offset {
        Resumption::Gap { from: position.offset, to: log_start_offset }
    } else {
        Resumption::At(position)
    }
}
