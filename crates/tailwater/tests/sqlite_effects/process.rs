//! The processes of the search: one that consumes while it publishes, one that finishes, and a zombie, which has polled
//! and is taken for dead.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rusqlite::ErrorCode;
use tailwater::{
    Broker, Error, LagLimit, Message, PartitionId, Producer, ProducerOptions, TopicConfig, TopicPartition,
};

use crate::bank::{Bank, Journal, Mistake, Outcome};
use crate::choices::Choices;
use crate::instance::{GROUP, Instance};

pub(crate) const PARTITIONS: u32 = 4;
pub(crate) const TOPIC: &str = "bookings";

/// The test that a process is told to run, and that finds its part in the environment.
pub(crate) const ENTRY: &str =
    "with_a_rollback_journal_every_record_has_one_effect_whenever_the_process_dies";
const PART: &str = "TAILWATER_TEST_EFFECTS_PART";
const ROOT: &str = "TAILWATER_TEST_EFFECTS_ROOT";
const JOURNAL: &str = "TAILWATER_TEST_EFFECTS_JOURNAL";
const MISTAKE: &str = "TAILWATER_TEST_EFFECTS_MISTAKE";
const SEED: &str = "TAILWATER_TEST_EFFECTS_SEED";

const SIGKILL: i32 = 9;

/// How long a process may take for what it is asked to do, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the broker's data and the database are, and how the program treats them.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) root: PathBuf,
    pub(crate) journal: Journal,
    pub(crate) mistake: Option<Mistake>,
}

impl Setup {
    /// With an empty topic.
    pub(crate) fn create(root: &Path, journal: Journal, mistake: Option<Mistake>) -> Self {
        let setup = Self { root: root.to_owned(), journal, mistake };
        let broker = setup.broker();
        // Small segments, so that the search comes by rolls.
        let config = TopicConfig::new().partitions(PARTITIONS).segment_bytes(16 * 1024);
        broker.create_topic(TOPIC, &config).unwrap();
        broker.close().unwrap();
        setup
    }

    fn of_environment() -> Self {
        let is = |name: &str, text: &str| std::env::var(name).unwrap() == text;
        let journals = [Journal::Rollback, Journal::Wal];
        Self {
            root: std::env::var_os(ROOT).unwrap().into(),
            journal: *journals.iter().find(|journal| is(JOURNAL, &format!("{journal:?}"))).unwrap(),
            mistake: Mistake::ALL.into_iter().find(|mistake| is(MISTAKE, &format!("{mistake:?}"))),
        }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("bank.db")
    }

    pub(crate) fn broker(&self) -> Broker {
        Broker::open(self.root.join("data")).unwrap()
    }

    pub(crate) fn bank(&self) -> Bank {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match Bank::open(&self.database(), self.journal, self.mistake) {
                // Another takes back what a dead one has left half done. SQLite does not wait for that by itself.
                Err(error)
                    if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                        && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                opened => return opened.unwrap(),
            }
        }
    }
}

pub(crate) fn partitions() -> Vec<TopicPartition> {
    (0..PARTITIONS).map(|number| TopicPartition::new(TOPIC, PartitionId::new(number))).collect()
}

/// What a process does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// Publishes and consumes, until it is killed.
    Live,
    /// Consumes what there is, and ends.
    Finish,
    /// Polls, closes its broker, and applies what it has when it is told to.
    Zombie,
}

/// Plays the part that this process was given, if it was given one.
pub(crate) fn play() -> bool {
    let Ok(part) = std::env::var(PART) else { return false };
    let setup = Setup::of_environment();
    let choices = Choices::new(std::env::var(SEED).unwrap().parse().unwrap());
    match part.as_str() {
        "Live" => live(&setup, choices),
        "Finish" => finish(&setup, choices),
        _ => zombie(&setup, choices),
    }
    true
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever listens may have gone.
    let _ = writeln!(out, "\n{text}");
    let _ = out.flush();
}

fn live(setup: &Setup, mut choices: Choices) {
    let broker = setup.broker();
    say("opened");
    // The group's commits are what limits the lag: a program that forgot them would come to a stop.
    let limit = LagLimit::new(GROUP).max_records(400).waiting();
    let options = ProducerOptions::new().lag_limit(limit).max_block(Duration::from_millis(50));
    let producer = broker.producer_with(TOPIC, options).unwrap();
    let publishing = Choices::new(choices.next());
    let coming_and_going = Choices::new(choices.next());
    std::thread::scope(|scope| {
        scope.spawn(|| publish(&producer, publishing));
        scope.spawn(|| come_and_go(setup, &broker, coming_and_going));
        consume(setup, &broker, &mut choices, |_| true);
    });
}

/// Publishes amounts, a few at a time.
fn publish(producer: &Producer, mut choices: Choices) {
    loop {
        let mut receipt = None;
        for _ in 0..=choices.below(12) {
            let account = format!("account {}", choices.below(16));
            let cents = (choices.below(20_001).cast_signed() - 10_000).to_string();
            match producer.send(Message::new(cents.as_bytes()).key(account.as_bytes())) {
                Ok(sent) => receipt = Some(sent),
                Err(Error::GroupLagging { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        if let Some(receipt) = receipt {
            receipt.wait().unwrap();
        }
        std::thread::sleep(Duration::from_micros(choices.below(3_000)));
    }
}

/// Consumes while `goes_on`, which is told whether there was nothing.
fn consume(
    setup: &Setup,
    broker: &Broker,
    choices: &mut Choices,
    mut goes_on: impl FnMut(bool) -> bool,
) -> Instance {
    let mut instance = Instance::start(setup, broker, 1 + u32::try_from(choices.below(60)).unwrap());
    say("consuming");
    loop {
        let records = instance.poll(Duration::from_millis(100));
        if !records.is_empty() {
            // At times it works for longer than a member may that is to give up a partition.
            if choices.below(4) == 0 {
                std::thread::sleep(Duration::from_micros(choices.below(8_000)));
            }
            match instance.apply(&records) {
                // Now and then, and not waited for: for retention and lag, which is all that it is for. A member that was
                // fenced is told so, and its next poll says it again.
                Outcome::Applied if choices.below(4) == 0 => drop(instance.consumer.commit()),
                Outcome::Applied => {}
                Outcome::Overtaken => {
                    say("overtaken");
                    instance.start_over();
                }
            }
        }
        if !goes_on(records.is_empty()) {
            return instance;
        }
    }
}

/// A member that comes and goes, as fast as the others let it.
fn come_and_go(setup: &Setup, broker: &Broker, mut choices: Choices) {
    loop {
        let mut polls = choices.below(12);
        let goes_on = |_| {
            polls = polls.saturating_sub(1);
            polls > 0
        };
        drop(consume(setup, broker, &mut Choices::new(choices.next()), goes_on));
        std::thread::sleep(Duration::from_micros(choices.below(5_000)));
    }
}

fn finish(setup: &Setup, mut choices: Choices) {
    let broker = setup.broker();
    let instance = consume(setup, &broker, &mut choices, |was_empty| !was_empty);
    instance.consumer.commit().wait().unwrap();
    instance.consumer.close().unwrap();
    broker.close().unwrap();
    say("finished");
}

fn zombie(setup: &Setup, mut choices: Choices) {
    let broker = setup.broker();
    let mut instance = Instance::start(setup, &broker, 1 + u32::try_from(choices.below(30)).unwrap());
    let polled = (0..3).map(|_| instance.poll(Duration::ZERO));
    let held: Vec<_> = polled.filter(|records| !records.is_empty()).collect();
    broker.close().unwrap();
    say(&format!("holding {}", held.len()));
    for line in std::io::stdin().lines() {
        assert_eq!(line.unwrap(), "apply");
        let outcomes: Vec<_> = held.iter().map(|records| instance.apply(records)).collect();
        let applied = outcomes.iter().filter(|outcome| **outcome == Outcome::Applied).count();
        say(&format!("applied {applied} of {}", outcomes.len()));
    }
}

/// A process, and what it says.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    heard: Vec<String>,
}

impl Process {
    pub(crate) fn start(setup: &Setup, part: Part, seed: u64) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", ENTRY, "--nocapture", "--test-threads=1"]);
        command.env(PART, format!("{part:?}")).env(ROOT, &setup.root).env(SEED, seed.to_string());
        command.env(JOURNAL, format!("{:?}", setup.journal));
        command.env(MISTAKE, setup.mistake.map_or_else(String::new, |mistake| format!("{mistake:?}")));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // Ends with the process.
            out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines, heard: Vec::new() }
    }

    /// The rest of the next line that begins like this; `None` if the process ends before.
    pub(crate) fn hear(&mut self, beginning: &str) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let rest = line.strip_prefix(beginning).map(str::to_owned);
                    self.heard.push(line);
                    if rest.is_some() {
                        return rest;
                    }
                }
                Err(_) => {
                    assert!(Instant::now() < deadline, "the process did not say {beginning:?} in time");
                    return None;
                }
            }
        }
    }

    pub(crate) fn tell(&mut self, text: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{text}").unwrap();
    }

    /// Kills it, and returns all that it has said.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(SIGKILL), "the process ended by itself: {status}");
        self.heard.extend(self.lines.iter());
        std::mem::take(&mut self.heard)
    }

    /// Waits for it to end.
    pub(crate) fn end(mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // None is left behind by a test that fails. One that has ended is not killed again.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
