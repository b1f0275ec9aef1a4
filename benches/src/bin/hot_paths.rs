//! Runs one hot path on its own, or counts the instructions of each: a regression shows in them on a machine whose times
//! swing by a third.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use tailwater::{Broker, Message, Reset, TopicConfig};
use tailwater_benches::baseline::staged::Staged;
use tailwater_benches::contest::Result;
use tailwater_benches::groups::{self, Reader};
use tailwater_benches::measure::scattered;
use tailwater_benches::subject;
use tailwater_groups::GroupStore;
use tailwater_log::{Durability, Log, NewRecord, WhenFull};

/// Runs the hot paths under callgrind and compares their instructions with those that were recorded.
#[derive(Debug, Parser)]
#[command(name = "hot_paths", version)]
struct Arguments {
    /// Directory on the disk to work on
    #[arg(long, global = true, value_name = "DIR", default_value = ".")]
    work: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs one path
    Run {
        path: HotPath,
        /// How many records
        #[arg(long, default_value_t = 1_000_000)]
        count: u64,
    },
    /// Counts the instructions of each path for a record, by callgrind, and writes them to a file
    Record {
        #[arg(default_value = "benches/instructions.csv")]
        file: PathBuf,
    },
    /// Counts them again and fails if a path takes more than a file has
    Check {
        #[arg(default_value = "benches/instructions.csv")]
        file: PathBuf,
        /// How many percent more are let pass: other compilers make other code
        #[arg(long, default_value_t = 5.0)]
        percent: f64,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum HotPath {
    /// The bare baseline of the next one
    #[value(name = "bare-append-100b")]
    BareAppend100b,
    /// `Log::append`, `buffered`, 100 B
    #[value(name = "append-buffered-100b")]
    AppendBuffered100b,
    /// `Log::append`, `buffered`, 1 KiB
    #[value(name = "append-buffered-1kib")]
    AppendBuffered1kib,
    /// `Log::append`, `written`, 100 B
    #[value(name = "append-written-100b")]
    AppendWritten100b,
    /// `Log::append` of 100 records of 100 B
    #[value(name = "append-batches-100b")]
    AppendBatches100b,
    /// `Log::fetch` of all records, 100 B
    #[value(name = "scan-100b")]
    Scan100b,
    /// `Log::fetch` of all records, 1 KiB
    #[value(name = "scan-1kib")]
    Scan1kib,
    /// `Log::fetch` of one record somewhere, 1 KiB
    #[value(name = "random-read-1kib")]
    RandomRead1kib,
    /// `Producer::send` by key over 8 partitions, `buffered`, 100 B
    #[value(name = "send-100b")]
    Send100b,
    /// `Consumer::poll` of all records of 8 partitions, 100 B
    #[value(name = "poll-100b")]
    Poll100b,
    /// `Member::commit` of one position, not waited for, by one of 16 members
    #[value(name = "commit-one")]
    CommitOne,
    /// `Member::poll` without news and `Member::deliver` of nothing, by one of 16 members
    #[value(name = "poll-without-news")]
    PollWithoutNews,
}

impl HotPath {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn run(self, work: &Path, count: u64) -> Result<()> {
        let directory = tempfile::Builder::new().prefix("hot-").tempdir_in(work)?;
        let directory = directory.path();
        match self {
            HotPath::BareAppend100b => {
                let mut file = Staged::create(&directory.join("bare"), count * 108)?;
                (0..count).try_for_each(|_| file.append(&[7; 100]))?;
            }
            HotPath::AppendBuffered100b => drop(filled(directory, Durability::Buffered, 100, count)?),
            HotPath::AppendBuffered1kib => drop(filled(directory, Durability::Buffered, 1024, count)?),
            HotPath::AppendWritten100b => drop(filled(directory, Durability::Written, 100, count)?),
            HotPath::AppendBatches100b => {
                let log = subject::create(directory, Durability::Buffered)?;
                let records = vec![NewRecord::new(&[7; 100]); 100];
                for _ in 0..count / 100 {
                    log.append(&records, None, WhenFull::Wait)?.wait()?;
                }
            }
            HotPath::Scan100b | HotPath::Scan1kib => {
                let size_bytes = if self == HotPath::Scan100b { 100 } else { 1024 };
                let log = filled(directory, Durability::Buffered, size_bytes, SCANNED)?;
                for _ in 0..count.div_ceil(SCANNED) {
                    subject::scan(&log)?;
                }
            }
            HotPath::RandomRead1kib => {
                let log = filled(directory, Durability::Buffered, 1024, SCANNED)?;
                let mut next = scattered(SCANNED);
                for _ in 0..count {
                    subject::read(&log, next())?;
                }
            }
            HotPath::Send100b => drop(sent(directory, count)?),
            HotPath::Poll100b => {
                let broker = sent(directory, SCANNED)?;
                for _ in 0..count.div_ceil(SCANNED) {
                    let mut reader = broker.reader().reset(Reset::Earliest).subscribe(&["bench"])?;
                    let mut polled = 0;
                    while polled < SCANNED {
                        let records = reader.poll(Duration::from_secs(10))?;
                        polled += records.iter().filter(|record| record.value().is_some()).count() as u64;
                    }
                }
            }
            HotPath::CommitOne => {
                let (_store, members) = group(directory)?;
                let at = members[0].nth_owned(0).ok_or("the first member owns partitions")?;
                for offset in 0..count {
                    drop(members[0].member.commit(&[groups::commit(at, offset)])?);
                }
            }
            HotPath::PollWithoutNews => {
                let (_store, members) = group(directory)?;
                for _ in 0..count {
                    members[0].member.poll()?;
                    members[0].member.deliver(&[])?;
                }
            }
        }
        Ok(())
    }
}

/// 16 members that share 1,000 partitions and know which.
fn group(directory: &Path) -> Result<(GroupStore, Vec<Reader>)> {
    let store = groups::store(directory, 1_000)?;
    let mut members = (0..16).map(|_| Reader::join(&store)).collect::<Result<Vec<_>>>()?;
    members.iter_mut().try_for_each(|member| member.poll().map(drop))?;
    Ok((store, members))
}

/// How many records there are to read.
const SCANNED: u64 = 10_000;

fn filled(directory: &Path, durability: Durability, size_bytes: usize, count: u64) -> Result<Log> {
    let log = subject::create(directory, durability)?;
    let value = vec![7; size_bytes];
    (0..count).try_for_each(|_| subject::append(&log, &value))?;
    log.write_staged()?;
    Ok(log)
}

fn sent(directory: &Path, count: u64) -> Result<Broker> {
    let broker = Broker::open(directory.join("data"))?;
    let config = TopicConfig::new().partitions(8).durability(Durability::Buffered);
    broker.create_topic("bench", &config)?;
    let producer = broker.producer("bench")?;
    for number in 0..count {
        let message = Message::new(&[7; 100]);
        drop(producer.send(message.key(&(number % 1_000).to_le_bytes()))?);
    }
    producer.flush().wait()?;
    Ok(broker)
}

/// The instructions that one record takes more, by the difference of a long and a short run.
fn instructions(path: HotPath, work: &Path) -> Result<f64> {
    let (short, long) = (2 * SCANNED, 6 * SCANNED);
    let more = counted(path, work, long)? - counted(path, work, short)?;
    Ok(more / (long - short) as f64)
}

fn counted(path: HotPath, work: &Path, count: u64) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--"])
        .arg(std::env::current_exe()?)
        .arg("--work")
        .arg(work)
        .args(["run", &path.name(), "--count", &count.to_string()])
        .output()
        .map_err(|error| format!("valgrind cannot be started ({error}); install it"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{} fails under valgrind: {said}", path.name()).into());
    }
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.ok_or_else(|| format!("valgrind has counted nothing: {said}").into())
}

fn all() -> &'static [HotPath] {
    HotPath::value_variants()
}

fn record(work: &Path, file: &Path) -> Result<()> {
    let mut text = String::from("path,instructions per record\n");
    for path in all() {
        let count = instructions(*path, work)?;
        eprintln!("{:<24} {count:>8.0}", path.name());
        text.push_str(&format!("{},{count:.0}\n", path.name()));
    }
    Ok(std::fs::write(file, text)?)
}

fn check(work: &Path, file: &Path, percent: f64) -> Result<bool> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut is_good = true;
    for path in all() {
        let name = path.name();
        let recorded: f64 = text
            .lines()
            .find_map(|line| line.split_once(',').filter(|(path, _)| *path == name)?.1.parse().ok())
            .ok_or_else(|| format!("{} has no line for {name}; record again", file.display()))?;
        let count = instructions(*path, work)?;
        let change = 100.0 * (count / recorded - 1.0);
        let verdict = if change > percent { "  more than was recorded" } else { "" };
        println!("{name:<24} {count:>8.0} {change:>+7.1} %{verdict}");
        is_good &= change <= percent;
    }
    Ok(is_good)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let work = &arguments.work;
    let done = match &arguments.what {
        What::Run { path, count } => path.run(work, *count).map(|()| true),
        What::Record { file } => record(work, file).map(|()| true),
        What::Check { file, percent } => check(work, file, *percent),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}
