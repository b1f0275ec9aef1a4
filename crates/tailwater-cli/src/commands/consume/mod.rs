//! `consume`: prints records, and commits for a group what standard output has taken.

mod bounds;
mod printer;
mod source;

use std::fmt;
use std::ptr;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use tailwater::{Broker, Consumer, Cursor, Error, Event, Receipt, Record, Records, TopicPartition};

use self::bounds::{Bounds, Verdict};
pub(super) use self::printer::Printer;
use crate::args::ConsumeArgs;
use crate::directory::{Directory, close};
use crate::exit::{Failure, Result, warn};
use crate::output::Output;
use crate::signals;

/// How long a poll waits before it is looked again whether the end was reached.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) fn run(directory: &Directory, json: bool, args: &ConsumeArgs) -> Result<()> {
    print_to(directory, args, Printer::new(args, json), Output::new(), |_| ProgressBar::hidden())
}

/// Prints to `output`; `progress` makes a bar for at most so many records.
pub(super) fn print_to(
    directory: &Directory,
    args: &ConsumeArgs,
    printer: Printer,
    output: Output,
    progress: impl FnOnce(u64) -> ProgressBar,
) -> Result<()> {
    let deadline = args.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    // Waiting for a number of records is waiting.
    let follows = args.follow || (args.max.is_some() && args.timeout.is_some());
    let source = source::open(directory, args)?;
    let broker = source.broker.clone();
    if follows {
        signals::interrupt(source.consumer.interrupter())?;
        signals::interrupt_when_unread(source.consumer.interrupter())?;
    }
    let bounds = Bounds::new(&source, args, follows)?;
    let bar = progress(bounds.records_left(&source.consumer)?);
    let consuming = Consuming {
        consumer: source.consumer,
        commits: source.commits,
        bounds,
        printer,
        output,
        bar,
        flushes_each: follows || source.commits,
        deadline,
        left: args.max,
        printed: 0,
        commit: None,
    };
    let consumed = consuming.run(args);
    let closed = close(&broker);
    consumed.and(closed)
}

struct Consuming {
    consumer: Consumer,
    commits: bool,
    bounds: Bounds,
    printer: Printer,
    output: Output,
    bar: ProgressBar,
    /// Whether what a poll returned is flushed before the next.
    flushes_each: bool,
    deadline: Option<Instant>,
    /// How many records may still be printed.
    left: Option<u64>,
    printed: u64,
    /// The last commit, which the next one waits for.
    commit: Option<Receipt<()>>,
}

/// Why it ends.
#[derive(PartialEq, Eq)]
enum End {
    /// Everything that was asked for is printed.
    Reached,
    TimedOut,
    Interrupted,
}

impl Consuming {
    fn run(mut self, args: &ConsumeArgs) -> Result<()> {
        let ended = self.print_all();
        self.bar.finish_and_clear();
        // What was printed before a failure is shown before it.
        self.output.flush()?;
        let end = ended?;
        if let Some(commit) = self.commit.take() {
            commit.wait()?;
        }
        self.consumer.close()?;
        match (end, args.max) {
            (End::TimedOut, Some(max)) => {
                let text =
                    format!("--timeout passed when {} of {max} records had been printed", self.printed);
                Err(Failure::timed_out(text))
            }
            _ => Ok(()),
        }
    }

    fn print_all(&mut self) -> Result<End> {
        while !self.is_enough() {
            let wait = self.deadline.map_or(Duration::MAX, |deadline| {
                // Also when opening took all the time there was: each attempt gets on.
                deadline.saturating_duration_since(Instant::now())
            });
            let wait = if self.bounds.is_bounded() { wait.min(LOOK) } else { wait };
            let records = match self.consumer.poll(wait) {
                Err(Error::Interrupted) => return Ok(End::Interrupted),
                polled => polled?,
            };
            self.tell(&records)?;
            let before = self.printed;
            let printed = self.print(&records)?;
            self.bar.inc(self.printed - before);
            if self.flushes_each {
                self.output.flush()?;
            }
            if self.commits {
                self.commit(printed)?;
            }
            let is_idle = records.is_empty() && records.events().is_empty();
            self.bounds.look(&mut self.consumer, is_idle)?;
            let is_late = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
            if is_late && !self.is_enough() {
                return Ok(End::TimedOut);
            }
        }
        Ok(End::Reached)
    }

    /// Whether everything that was asked for is printed.
    fn is_enough(&self) -> bool {
        self.left == Some(0) || self.bounds.are_reached()
    }

    /// Says what happened besides records.
    fn tell(&mut self, records: &Records) -> Result<()> {
        let warn = |text: fmt::Arguments<'_>| self.bar.suspend(|| warn(text));
        for event in records.events() {
            match event {
                Event::Gap { partition, from, to } => {
                    warn(format_args!(
                        "{partition}: offsets [{from}, {to}) were removed before they were read"
                    ));
                }
                Event::Diverged { partition, position, epoch_end } => warn(format_args!(
                    "{partition}: records below offset {} were lost since it was read; going on at {epoch_end}",
                    position.offset
                )),
                Event::TopicDeleted { topic } => {
                    warn(format_args!("topic {topic} was deleted"));
                    if self.consumer.assignment().is_empty() {
                        self.output.flush()?;
                        return Err(Failure::failed("there is nothing left to read"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Prints the records that are within the bounds. Tells how far that is in each partition, unless it is all of them.
    fn print(&mut self, records: &Records) -> Result<Option<Vec<Cursor>>> {
        let mut is_cut = false;
        let mut cursors: Vec<Cursor> = Vec::new();
        // The records of a partition follow each other.
        let mut run: Option<(&TopicPartition, usize, Option<Record<'_>>)> = None;
        for record in records.iter() {
            let place = record.topic_partition();
            let index = match run {
                Some((known, index, _)) if ptr::eq(known, place) => index,
                _ => {
                    cursors.extend(run.take().and_then(|(_, _, last)| last).map(|last| last.next_cursor()));
                    let index = self.bounds.index_of(place);
                    run = Some((place, index, None));
                    index
                }
            };
            let is_enough = self.left == Some(0);
            if is_enough || self.bounds.admit(index, record.offset(), record.appended_at()) == Verdict::Beyond
            {
                is_cut = true;
                continue;
            }
            self.printer.print(&record, self.output.buffer());
            self.output.spill()?;
            self.printed += 1;
            self.left = self.left.map(|left| left - 1);
            if let Some((_, _, last)) = &mut run {
                *last = Some(record);
            }
        }
        cursors.extend(run.and_then(|(_, _, last)| last).map(|last| last.next_cursor()));
        Ok(is_cut.then_some(cursors))
    }

    /// Commits what was printed, and flushed: all that was polled, or up to the given places.
    fn commit(&mut self, printed: Option<Vec<Cursor>>) -> Result<()> {
        if let Some(earlier) = self.commit.take() {
            earlier.wait()?;
        }
        self.commit = Some(match printed {
            None => self.consumer.commit(),
            Some(cursors) => self.consumer.commit_to(&cursors),
        });
        Ok(())
    }
}

/// The broker and the consumer that read it.
struct Source {
    broker: Broker,
    consumer: Consumer,
    /// Whether what is printed is committed.
    commits: bool,
}
