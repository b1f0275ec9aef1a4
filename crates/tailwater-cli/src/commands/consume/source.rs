//! Getting at the records: for a group, which commits, or without one, beside whoever writes.

use tailwater::{Broker, Consumer, ConsumerOptions, Error, OnExpired, SeekTo, TopicPartition};
use tailwater_cli::time::Position;

use super::Source;
use crate::args::ConsumeArgs;
use crate::directory::{Directory, Missing, embedded, warn_of_recovery};
use crate::exit::Result;

/// How many records a poll returns at most.
const MAX_RECORDS: u32 = 65_536;
/// The same where each poll is followed by a commit: so many are printed again at most, if the process is killed.
const MAX_RECORDS_PER_COMMIT: u32 = 8_192;

/// What can be done where a group cannot commit.
const BESIDE_A_WRITER: &str =
    "a group commits what it reads, which only one process can: add --no-commit to read beside it";

/// Opens the directory as `args` need it, and makes a consumer that stands where they say.
pub(super) fn open(directory: &Directory, args: &ConsumeArgs) -> Result<Source> {
    let reset = args.from.map(Position::to_reset).unwrap_or_default();
    match &args.group {
        Some(group) if !args.no_commit => {
            let broker =
                directory.open(Missing::Fail).map_err(|failure| failure.or_if_locked(BESIDE_A_WRITER))?;
            let consumer =
                consumer(broker.consumer(group).reset(reset).max_records(MAX_RECORDS_PER_COMMIT), args)?;
            for place in consumer.assignment() {
                warn_of_recovery(&place, &embedded(&broker)?.recovery_report(&place)?);
            }
            Ok(Source { broker, consumer, commits: true })
        }
        group => {
            let broker = directory.read(&args.topics)?;
            let mut consumer = consumer(broker.reader().reset(reset).max_records(MAX_RECORDS), args)?;
            if let Some(group) = group {
                go_where_group_is(&broker, &mut consumer, group)?;
            }
            Ok(Source { broker, consumer, commits: false })
        }
    }
}

fn consumer(options: ConsumerOptions, args: &ConsumeArgs) -> Result<Consumer> {
    let options = options.on_expired(if args.expired { OnExpired::Return } else { OnExpired::Skip });
    if args.partitions.is_empty() {
        return Ok(options.subscribe(&args.topics)?);
    }
    let places = args.topics.iter().flat_map(|topic| {
        args.partitions.iter().map(|partition| TopicPartition::new(topic.as_str(), *partition))
    });
    Ok(options.assign(&places.collect::<Vec<_>>())?)
}

/// Goes where a group is, without becoming a member of it.
fn go_where_group_is(broker: &Broker, consumer: &mut Consumer, group: &str) -> Result<()> {
    let described = match broker.describe_group(group) {
        Err(Error::UnknownGroup { .. }) => return Ok(()),
        described => described?,
    };
    let assignment = consumer.assignment();
    for position in described.positions {
        if assignment.contains(&position.partition) {
            consumer.seek(&position.partition, SeekTo::Cursor(position.committed))?;
        }
    }
    Ok(())
}
