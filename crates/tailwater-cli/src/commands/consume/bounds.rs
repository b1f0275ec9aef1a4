//! Where reading ends: in each partition, and as a whole.

use tailwater::{Clock, Consumer, Offset, SystemClock, Timestamp, TopicPartition};
use tailwater_cli::time::Position;

use super::Source;
use crate::args::ConsumeArgs;
use crate::directory::embedded;
use crate::exit::Result;

/// How long a record that was appended before `--until TIME` is waited for after it: until it can be read it may have to
/// be synced.
const UNTIL_GRACE_MS: u64 = 2_000;

/// Where reading ends in each partition.
pub(super) struct Bounds {
    partitions: Vec<Partition>,
    /// The first append time that is not read any more.
    until_time: Option<Timestamp>,
    /// Whether partitions that come later are read without an end.
    is_open: bool,
}

struct Partition {
    place: TopicPartition,
    /// The first offset that is not read any more.
    end: Option<Offset>,
    is_finished: bool,
    /// Whether the consumer leaves it alone.
    is_paused: bool,
}

/// Whether a record is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Within,
    Beyond,
}

impl Bounds {
    /// The bounds that the arguments set. Without following, what is there now is the end of all reading.
    pub(super) fn new(source: &Source, args: &ConsumeArgs, follows: bool) -> Result<Self> {
        let mut partitions = Vec::new();
        for place in source.consumer.assignment() {
            let end = source.consumer.lag(&place)?.end;
            let until = match args.until {
                None | Some(Position::Time(_)) => None,
                Some(Position::Earliest) => Some(embedded(&source.broker)?.stats(&place)?.log_start_offset),
                Some(Position::Latest) => Some(end),
                Some(Position::Offset(offset)) => Some(offset),
                Some(Position::Last(count)) => Some(Offset::new(end.get().saturating_sub(count))),
            };
            let end = match (until, follows) {
                (until, true) => until,
                (None, false) => Some(end),
                (Some(until), false) => Some(until.min(end)),
            };
            partitions.push(Partition { place, end, is_finished: false, is_paused: false });
        }
        let until_time = match args.until {
            Some(Position::Time(when)) => Some(when.to_timestamp(SystemClock.now())),
            _ => None,
        };
        let mut bounds = Self { partitions, until_time, is_open: follows };
        for partition in &mut bounds.partitions {
            partition.finish_behind(source.consumer.position(&partition.place)?.offset);
        }
        Ok(bounds)
    }

    /// How many records are read at most, if what is there now is the end.
    pub(super) fn records_left(&self, consumer: &Consumer) -> Result<u64> {
        let mut left = 0;
        for partition in self.partitions.iter().filter(|partition| !partition.is_finished) {
            let position = consumer.position(&partition.place)?.offset;
            let end = match partition.end {
                Some(end) => end,
                None => consumer.lag(&partition.place)?.end,
            };
            left += end.get().saturating_sub(position.get());
        }
        Ok(left)
    }

    /// Whether any partition has an end.
    pub(super) fn is_bounded(&self) -> bool {
        self.until_time.is_some() || self.partitions.iter().any(|partition| partition.end.is_some())
    }

    /// Whether every partition was read to its end.
    pub(super) fn are_reached(&self) -> bool {
        self.partitions.iter().all(|partition| partition.is_finished)
    }

    /// The number of a partition; one that came since is added.
    pub(super) fn index_of(&mut self, place: &TopicPartition) -> usize {
        let known = self.partitions.iter().position(|known| known.place == *place);
        known.unwrap_or_else(|| {
            // Without following, what was added since was not there when it began.
            let end = (!self.is_open).then_some(Offset::ZERO);
            self.partitions.push(Partition {
                place: place.clone(),
                end,
                is_finished: !self.is_open,
                is_paused: false,
            });
            self.partitions.len() - 1
        })
    }

    /// Whether a record is read. The first one that is not finishes its partition.
    pub(super) fn admit(&mut self, index: usize, offset: Offset, appended_at: Timestamp) -> Verdict {
        let partition = &mut self.partitions[index];
        let is_beyond = partition.end.is_some_and(|end| offset >= end)
            || self.until_time.is_some_and(|until| appended_at >= until);
        if !is_beyond && !partition.is_finished {
            return Verdict::Within;
        }
        partition.is_finished = true;
        Verdict::Beyond
    }

    /// Looks which partitions were read to their ends by now, and has them left alone. `is_idle` says that there was
    /// nothing to read: then an end that was truncated meanwhile is moved to where the partition ends now, and a time that
    /// is over ends all.
    pub(super) fn look(&mut self, consumer: &mut Consumer, is_idle: bool) -> Result<()> {
        let now = SystemClock.now().saturating_sub_ms(UNTIL_GRACE_MS);
        if is_idle && self.until_time.is_some_and(|until| until <= now) {
            self.partitions.iter_mut().for_each(|partition| partition.is_finished = true);
        }
        for partition in &mut self.partitions {
            if let Some(end) = partition.end.filter(|_| !partition.is_finished) {
                if is_idle && !self.is_open {
                    partition.end = Some(end.min(consumer.lag(&partition.place)?.end));
                }
                partition.finish_behind(consumer.position(&partition.place)?.offset);
            }
        }
        let finished =
            self.partitions.iter_mut().filter(|partition| partition.is_finished && !partition.is_paused);
        let finished = finished.map(|partition| {
            partition.is_paused = true;
            partition.place.clone()
        });
        Ok(consumer.pause(&finished.collect::<Vec<_>>())?)
    }
}

impl Partition {
    fn finish_behind(&mut self, position: Offset) {
        self.is_finished |= self.end.is_some_and(|end| position >= end);
    }
}
