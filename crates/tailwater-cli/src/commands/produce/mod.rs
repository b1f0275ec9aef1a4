//! `produce`: a record for each line of the input, sent as lines arrive.
//!
//! - One thread reads and sends, the main thread waits for the receipts in order: while it waits for a sync, more lines
//!   are read, and one sync serves them all.
//! - After each read whatever it brought is sent and handed to the main thread, so a slow input holds nothing back.
//! - The main thread ends the command when a record fails, also while the reading one waits for input.
//! - SIGINT and SIGTERM close the directory in order before they end the process.

mod acknowledge;
mod read;
mod shape;

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::sync::mpsc;
use std::thread;

use indicatif::ProgressBar;
use tailwater::{Broker, Error, Producer, ProducerOptions, TopicConfig};
use tailwater_cli::lines::LineCutter;

use self::acknowledge::Acknowledger;
use self::read::Reader;
use self::shape::Shape;
use crate::args::ProduceArgs;
use crate::directory::{Directory, Missing, close};
use crate::exit::{Failure, Result};
use crate::output::progress;
use crate::signals;

/// How many times the reading thread may hand receipts over before the first are acknowledged.
const HANDOVERS_AHEAD: usize = 16;

pub(crate) fn run(directory: &Directory, json: bool, args: ProduceArgs) -> Result<()> {
    let has_fields = args.key.is_some()
        || args.key_separator.is_some()
        || args.null_value.is_some()
        || !args.headers.is_empty();
    // Where `--json` follows the command, this was noticed before.
    if json && has_fields {
        let text =
            "--json excludes --key, --key-separator, --header and --null-value: records say these themselves";
        return Err(Failure::usage(text));
    }
    // Nothing is created for what cannot be.
    TopicConfig::new().check(&args.topic)?;
    let input = Input::open(&args)?;
    let missing = if args.no_create { Missing::Fail } else { Missing::Create };
    let broker = directory.open(missing)?;
    let ending = signals::close_and_end(broker.clone())?;
    let produced = produce(&broker, input, json, args);
    ending.give_way();
    let closed = close(&broker);
    produced.and(closed)
}

fn produce(broker: &Broker, input: Input, json: bool, args: ProduceArgs) -> Result<()> {
    let producer = producer(broker, &args)?;
    let topic = producer.topic().to_owned();
    let acks = args.acks;
    let (sender, receiver) = mpsc::sync_channel(HANDOVERS_AHEAD);
    let delimiter = match (&args.delimiter, args.zero) {
        (Some(delimiter), _) => delimiter.0.clone(),
        (None, true) => vec![0],
        (None, false) => vec![b'\n'],
    };
    let bar = input.bar;
    let reader = Reader {
        unit: if delimiter == b"\n" { "line" } else { "record" },
        cutter: LineCutter::new(&delimiter),
        shape: Shape::new(args, json),
        producer,
        sender,
        bar: bar.clone(),
        name: input.name,
    };
    let reading = thread::Builder::new()
        .name("tailwater-read".to_owned())
        .spawn(move || match input.file {
            Some(file) => reader.run(file),
            None => reader.run(io::stdin().lock()),
        })
        .map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;
    let mut acknowledger = Acknowledger::new(broker, topic, acks, bar.clone());
    let acknowledged = acknowledger.run(&receiver);
    // Whoever still sends is told that nobody listens any more.
    drop(receiver);
    let done = match acknowledged {
        // It may be waiting for input that never comes: it ends with the process.
        Err(failure) => Err(failure),
        Ok(()) => match reading.join() {
            Ok(read) => read,
            Err(_) => Err(Failure::failed("the reading thread panicked: this is a bug")),
        },
    };
    bar.finish_and_clear();
    let count = acknowledger.count();
    done.map_err(|failure| {
        failure.map_text(|text| {
            let records = if count == 1 { "record was" } else { "records were" };
            format!("{text}; {count} {records} acknowledged")
        })
    })
}

/// A producer for the topic, which is created if it is missing.
fn producer(broker: &Broker, args: &ProduceArgs) -> Result<Producer> {
    let mut options = ProducerOptions::new();
    if let Some(durability) = args.durability {
        options = options.durability(durability.into());
    }
    match broker.producer_with(&args.topic, options.clone()) {
        Err(Error::UnknownTopic { .. }) if !args.no_create => {
            broker.create_topic(&args.topic, &TopicConfig::new())?;
            Ok(broker.producer_with(&args.topic, options)?)
        }
        producer => Ok(producer?),
    }
}

/// Where the records come from.
struct Input {
    /// `None` for standard input.
    file: Option<Box<dyn Read + Send>>,
    name: String,
    bar: ProgressBar,
}

impl Input {
    fn open(args: &ProduceArgs) -> Result<Self> {
        let Some(path) = &args.file else {
            let bar = ProgressBar::hidden();
            return Ok(Self { file: None, name: "standard input".to_owned(), bar });
        };
        let name = path.display().to_string();
        let cannot = |error| Failure::failed(format!("cannot read {name}: {error}"));
        let file = File::open(path).map_err(cannot)?;
        let length = file.metadata().map_err(cannot)?.len();
        // Acknowledgements on the same terminal show how far it is.
        let is_shown = args.acks && io::stdout().is_terminal();
        let bar = if is_shown { ProgressBar::hidden() } else { progress(length) };
        Ok(Self { file: Some(Box::new(file)), bar, name })
    }
}
