//! Publishes the lines of a text durably, kills the publisher midway, and has two subscribers read every line all the same.
//!
//! ```sh
//! cargo run --release -p tailwater --example quickstart -- README.md
//! ```
//!
//! 1. A child process publishes lines, each acknowledged when it survives a power cut, and is killed (SIGKILL) midway.
//! 2. This process opens the directory, which recovers it. Two subscribers begin: one reads all there is, the other a
//!    part, and reads on without committing.
//! 3. The broker is closed and opened again, the rest of the lines is published, and each subscriber goes on where it
//!    committed.
//! 4. Every line that either of them read is compared with the text. A difference exits with 1.
//!
//! Instead of a file, `-` reads standard input. Nothing is left behind, so it works as often as one likes.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use tailwater::{Broker, BrokerOptions, Consumer, PartitionId, Producer, TopicConfig, TopicPartition};

const TOPIC: &str = "lines";
/// How this program calls itself to be the publisher that is killed.
const CHILD_FLAG: &str = "--publish-stdin-to";
/// Lines that may wait for their acknowledgement at a time: one sync serves many.
const MAX_IN_FLIGHT: usize = 1_000;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [flag, directory] if flag == CHILD_FLAG => publish_stdin(directory.as_ref()).map(|()| true),
        [file] if file == "-" => read_lines(std::io::stdin()).and_then(|lines| run(&lines)),
        [file] => std::fs::File::open(file)
            .map_err(|error| format!("cannot open {}: {error}", Path::new(file).display()).into())
            .and_then(|file| read_lines(file).and_then(|lines| run(&lines))),
        _ => Err("usage: quickstart FILE, or quickstart - for standard input".into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read_lines(mut input: impl Read) -> Outcome<Vec<Vec<u8>>> {
    let mut text = Vec::new();
    input.read_to_end(&mut text)?;
    let mut lines: Vec<_> = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    // What follows the last line break is a line only if there is something.
    if lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    if lines.is_empty() { Err("there are no lines to publish".into()) } else { Ok(lines) }
}

/// The whole demonstration. True if every line was read as it is in the text.
fn run(lines: &[Vec<u8>]) -> Outcome<bool> {
    let temporary = tempfile::tempdir()?;
    let data = temporary.path().join("data");
    println!("{} line(s), into {}", lines.len(), data.display());

    let acknowledged = publish_and_kill(&data, lines)?;

    let started = Instant::now();
    let broker = Broker::open(&data)?;
    let place = TopicPartition::new(TOPIC, PartitionId::ZERO);
    let embedded = broker.embedded().ok_or("the broker is not embedded")?;
    let report = embedded.recovery_report(&place)?;
    let survived = usize::try_from(report.log_end_offset.get())?;
    println!(
        "reopened in {:.1} ms: {survived} line(s) are there, {acknowledged} had been acknowledged",
        1000.0 * started.elapsed().as_secs_f64()
    );
    if survived < acknowledged {
        println!("LOST {} acknowledged lines", acknowledged - survived);
        return Ok(false);
    }

    let mut is_right = true;
    let mut archive = Subscriber::new(&broker, "archive", lines.len())?;
    is_right &= archive.read_to(lines, survived)?;
    archive.commit()?;
    let mut search = Subscriber::new(&broker, "search", lines.len())?;
    is_right &= search.read_to(lines, survived / 2)?;
    search.commit()?;
    // Read and not committed: to be read again after the reopening.
    is_right &= search.read_to(lines, survived)?;
    println!("archive read and committed {survived}; search read as many and committed {}", search.committed);
    drop((archive, search));
    broker.close()?;

    let broker = Broker::open(&data)?;
    let producer = broker.producer(TOPIC)?;
    let rest = &lines[survived.min(lines.len())..];
    let started = Instant::now();
    let mut in_flight = InFlight::default();
    for line in rest {
        in_flight.send(&producer, line)?;
    }
    in_flight.finish()?;
    report_rate("published the rest durably", rest.len(), started.elapsed());

    for group in ["archive", "search"] {
        let mut subscriber = Subscriber::new(&broker, group, lines.len())?;
        let resumed_at = subscriber.next;
        let started = Instant::now();
        is_right &= subscriber.read_to(lines, lines.len())?;
        subscriber.commit()?;
        let what = format!("{group} resumed at line {resumed_at} and read the rest");
        report_rate(&what, lines.len() - resumed_at, started.elapsed());
    }
    broker.close()?;
    println!("{}", if is_right { "every line is as it was" } else { "there are DIFFERENCES" });
    Ok(is_right)
}

/// Has a child publish lines and kills it midway. Returns how many it had acknowledged.
fn publish_and_kill(data: &Path, lines: &[Vec<u8>]) -> Outcome<usize> {
    let (enough, offered) = (lines.len() / 2, lines.len() * 3 / 4);
    let mut child = Command::new(std::env::current_exe()?)
        .arg(CHILD_FLAG)
        .arg(data)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut to_child = child.stdin.take().ok_or("the child has no input")?;
    let from_child = BufReader::new(child.stdout.take().ok_or("the child has no output")?);
    let started = Instant::now();
    let acknowledged = std::thread::scope(|scope| -> Outcome<usize> {
        let feed = scope.spawn(move || {
            for line in &lines[..offered] {
                // It is killed while it reads; that is no error.
                if to_child.write_all(line).and_then(|()| to_child.write_all(b"\n")).is_err() {
                    break;
                }
            }
            to_child
        });
        let mut acknowledged = 0;
        for count in from_child.lines() {
            acknowledged = count?.parse()?;
            if acknowledged >= enough {
                break;
            }
        }
        child.kill()?;
        let status = child.wait()?;
        drop(feed.join());
        if acknowledged < enough {
            return Err(format!("the publisher ended on its own: {status}").into());
        }
        Ok(acknowledged)
    })?;
    report_rate("published durably, then killed the publisher", acknowledged, started.elapsed());
    Ok(acknowledged)
}

/// The child: publishes its standard input, and prints how many lines are acknowledged.
fn publish_stdin(data: &Path) -> Outcome<()> {
    let broker = BrokerOptions::new().open(data)?;
    broker.create_topic(TOPIC, &TopicConfig::new())?;
    let producer = broker.producer(TOPIC)?;
    let mut input = BufReader::new(std::io::stdin().lock());
    let mut in_flight = InFlight::default();
    let mut line = Vec::new();
    println!("0");
    while input.read_until(b'\n', &mut line)? > 0 {
        let value = line.strip_suffix(b"\n").unwrap_or(&line);
        in_flight.send(&producer, value)?;
        if input.buffer().is_empty() {
            // The next line may be long in coming.
            in_flight.finish()?;
        }
        println!("{}", in_flight.acknowledged);
        line.clear();
    }
    // The parent holds the other end open until it has killed this process.
    Ok(())
}

/// Lines that were sent and not acknowledged yet.
#[derive(Default)]
struct InFlight {
    receipts: VecDeque<tailwater::Receipt<tailwater::Appended>>,
    acknowledged: usize,
}

impl InFlight {
    fn send(&mut self, producer: &Producer, line: &[u8]) -> tailwater::Result<()> {
        if self.receipts.len() >= MAX_IN_FLIGHT {
            self.wait_for_first()?;
        }
        self.receipts.push_back(producer.send(line)?);
        Ok(())
    }

    fn wait_for_first(&mut self) -> tailwater::Result<()> {
        if let Some(receipt) = self.receipts.pop_front() {
            receipt.wait()?;
            self.acknowledged += 1;
        }
        Ok(())
    }

    fn finish(&mut self) -> tailwater::Result<()> {
        while !self.receipts.is_empty() {
            self.wait_for_first()?;
        }
        Ok(())
    }
}

/// A subscriber that compares what it reads.
struct Subscriber {
    consumer: Consumer,
    group: &'static str,
    /// The next line to read: the topic has one partition, so a line's number is its offset.
    next: usize,
    committed: usize,
}

impl Subscriber {
    fn new(broker: &Broker, group: &'static str, line_count: usize) -> Outcome<Self> {
        // Small enough that half of a short text takes several polls too.
        let max_records = u32::try_from(line_count / 10)?.clamp(1, 1_000);
        let consumer = broker.consumer(group).max_records(max_records).subscribe(&[TOPIC])?;
        let place = TopicPartition::new(TOPIC, PartitionId::ZERO);
        let next = usize::try_from(consumer.position(&place)?.offset.get())?;
        Ok(Self { consumer, group, next, committed: next })
    }

    /// Reads on until line `end`, or a little further. True if every line is as it is in the text.
    fn read_to(&mut self, lines: &[Vec<u8>], end: usize) -> Outcome<bool> {
        let mut is_right = true;
        while self.next < end {
            let records = self.consumer.poll(Duration::from_secs(10))?;
            if let Some(event) = records.events().first() {
                return Err(format!("{} was told {event:?}", self.group).into());
            }
            if records.is_empty() {
                println!("{} waited in vain for line {}", self.group, self.next);
                return Ok(false);
            }
            for record in records.iter() {
                let offset = usize::try_from(record.offset().get())?;
                if offset != self.next || lines.get(offset).map(Vec::as_slice) != record.value() {
                    println!("{}: offset {offset} is not line {} of the text", self.group, self.next);
                    is_right = false;
                }
                self.next = offset + 1;
            }
        }
        Ok(is_right)
    }

    fn commit(&mut self) -> tailwater::Result<()> {
        self.consumer.commit().wait()?;
        self.committed = self.next;
        Ok(())
    }
}

fn report_rate(what: &str, lines: usize, elapsed: Duration) {
    #[allow(clippy::cast_precision_loss, reason = "a rate to look at")]
    let rate = lines as f64 / elapsed.as_secs_f64().max(1e-9);
    println!("{what}: {lines} line(s) in {:.1} ms, {rate:.0} lines/s", 1000.0 * elapsed.as_secs_f64());
}
