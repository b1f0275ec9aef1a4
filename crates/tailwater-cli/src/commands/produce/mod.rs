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
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use indicatif::ProgressBar;
use tailwater::{Broker, Durability, Error, Producer, ProducerOptions, TopicConfig};
use tailwater_cli::lines::LineCutter;

use self::acknowledge::Acknowledger;
use self::read::Reader;
pub(super) use self::shape::Shape;
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
    let delimiter = match (&args.delimiter, args.zero) {
        (Some(delimiter), _) => delimiter.0.clone(),
        (None, true) => vec![0],
        (None, false) => vec![b'\n'],
    };
    let plan = Plan {
        topic: args.topic.clone(),
        create: (!args.no_create).then(TopicConfig::new),
        durability: args.durability.map(Into::into),
        acks: args.acks,
        file: args.file.clone(),
        delimiter,
        shape: Shape::new(args, json),
    };
    plan.carry_out(directory).map(drop)
}

/// What is to be read, and how it is published.
pub(super) struct Plan {
    pub(super) topic: String,
    /// What a topic that is missing is created with.
    pub(super) create: Option<TopicConfig>,
    /// What an acknowledgement means, if not what the topic says.
    pub(super) durability: Option<Durability>,
    /// Whether acknowledgements are printed.
    pub(super) acks: bool,
    /// What is read, if not standard input.
    pub(super) file: Option<PathBuf>,
    pub(super) delimiter: Vec<u8>,
    pub(super) shape: Shape,
}

impl Plan {
    /// Publishes all that is read. Returns how many records were acknowledged.
    pub(super) fn carry_out(self, directory: &Directory) -> Result<u64> {
        // Nothing is created for what cannot be.
        self.create.clone().unwrap_or_default().check(&self.topic)?;
        let input = Input::open(&self)?;
        let missing = if self.create.is_some() { Missing::Create } else { Missing::Fail };
        let broker = directory.open(missing)?;
        let ending = signals::close_and_end(broker.clone())?;
        let produced = produce(&broker, input, self);
        ending.give_way();
        let closed = close(&broker);
        let count = produced?;
        closed.map(|()| count)
    }
}

fn produce(broker: &Broker, input: Input, plan: Plan) -> Result<u64> {
    let producer = producer(broker, &plan)?;
    let topic = producer.topic().to_owned();
    let acks = plan.acks;
    let (sender, receiver) = mpsc::sync_channel(HANDOVERS_AHEAD);
    let bar = input.bar;
    let reader = Reader {
        unit: if plan.delimiter == b"\n" { "line" } else { "record" },
        cutter: LineCutter::new(&plan.delimiter),
        shape: plan.shape,
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
    done.map(|()| count).map_err(|failure| {
        failure.map_text(|text| {
            let records = if count == 1 { "record was" } else { "records were" };
            format!("{text}; {count} {records} acknowledged")
        })
    })
}

/// A producer for the topic, which is created if it is missing.
fn producer(broker: &Broker, plan: &Plan) -> Result<Producer> {
    let mut options = ProducerOptions::new();
    if let Some(durability) = plan.durability {
        options = options.durability(durability);
    }
    match (broker.producer_with(&plan.topic, options.clone()), &plan.create) {
        (Err(Error::UnknownTopic { .. }), Some(config)) => {
            broker.create_topic(&plan.topic, config)?;
            Ok(broker.producer_with(&plan.topic, options)?)
        }
        (producer, _) => Ok(producer?),
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
    fn open(plan: &Plan) -> Result<Self> {
        let Some(path) = &plan.file else {
            let bar = ProgressBar::hidden();
            return Ok(Self { file: None, name: "standard input".to_owned(), bar });
        };
        let name = path.display().to_string();
        let cannot = |error| Failure::failed(format!("cannot read {name}: {error}"));
        let file = File::open(path).map_err(cannot)?;
        let length = file.metadata().map_err(cannot)?.len();
        // Acknowledgements on the same terminal show how far it is.
        let is_shown = plan.acks && io::stdout().is_terminal();
        let bar = if is_shown { ProgressBar::hidden() } else { progress(length) };
        Ok(Self { file: Some(Box::new(file)), bar, name })
    }
}
