//! How long does it take to open a log, after a clean close and after its process was killed?

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater_log::storage::Disk;
use tailwater_log::{Durability, Log, NewRecord, RecoveryOutcome, WhenFull};

use super::{VALUE_BYTES, value};
use crate::contest::{Bound, Contestant, Metric, Result, Role, Row, Scale, Target};
use crate::measure::scattered;
use crate::peer::{self, Workload};
use crate::subject;

/// In the environment of a process that is to write a log until it is killed: the directory.
const CHILD_DIRECTORY: &str = "TAILWATER_BENCH_CHILD_DIRECTORY";
/// In the environment of that process: how many bytes the log holds before it is ready.
const CHILD_BYTES: &str = "TAILWATER_BENCH_CHILD_BYTES";
/// What that process says then.
const READY: &str = "ready";
const BATCH_RECORDS: u64 = 1_000;
/// What is written between two kills, so that there is something to recover.
const BETWEEN_KILLS_BYTES: u64 = 32 << 20;

const METRICS: &[Metric] = &[Metric::time("open", "ms"), Metric::time("open and read the last", "ms")];

/// After a clean close.
pub(super) const CLEAN: Row = Row {
    name: "open-clean",
    title: "open after a clean close",
    metrics: METRICS,
    targets: &[Target { metric: 0, bound: Bound::AtMost(5.0) }],
    prepare: clean,
};

/// After SIGKILL.
pub(super) const KILLED: Row = Row {
    name: "open-killed",
    title: "open after SIGKILL amid appends",
    metrics: METRICS,
    targets: &[Target { metric: 0, bound: Bound::AtMost(100.0) }],
    prepare: killed,
};

fn clean(scale: &Scale) -> Result<Vec<Contestant>> {
    let mut contestants = Vec::new();
    for size_bytes in sizes(scale) {
        let directory = scale.directory()?;
        let log = subject::create(directory.path(), Durability::Durable)?;
        fill(&log, size_bytes)?;
        log.close()?;
        drop(log);
        let round = move || timed_open(directory.path(), RecoveryOutcome::Clean);
        let name = format!("tailwater, {}", human(size_bytes));
        contestants.push(Contestant::new(name, Role::Tailwater, "`Log::open`; `Log::fetch`", round));
        contestants.extend(clean_peers(scale, size_bytes)?);
    }
    Ok(contestants)
}

fn clean_peers(scale: &Scale, size_bytes: u64) -> Result<Vec<Contestant>> {
    let value = value(VALUE_BYTES);
    let count = size_bytes / VALUE_BYTES as u64;
    let peers = peer::contestants(scale, Workload::Reopen, |kind| {
        let directory = Rc::new(scale.directory()?);
        let mut peer = (kind.open)(directory.path(), 2 * size_bytes)?;
        peer.fill(&value, count + 1)?;
        drop(peer);
        Ok(move || {
            let start = Instant::now();
            let mut peer = (kind.open)(directory.path(), 2 * size_bytes)?;
            let opened = start.elapsed();
            peer.read(count)?;
            Ok(vec![milliseconds(opened), milliseconds(start.elapsed())])
        })
    })?;
    let sized =
        |peer: Contestant| Contestant { name: format!("{}, {}", peer.name, human(size_bytes)), ..peer };
    Ok(peers.into_iter().map(sized).collect())
}

fn killed(scale: &Scale) -> Result<Vec<Contestant>> {
    let mut contestants = Vec::new();
    for size_bytes in sizes(scale) {
        let directory = scale.directory()?;
        subject::create(directory.path(), Durability::Durable)?.close()?;
        let mut target_bytes = size_bytes;
        let round = move || {
            kill_a_writer(directory.path(), target_bytes)?;
            target_bytes += BETWEEN_KILLS_BYTES.min(size_bytes);
            timed_open(directory.path(), RecoveryOutcome::Recovered)
        };
        let name = format!("tailwater, {}", human(size_bytes));
        contestants.push(Contestant::new(
            name,
            Role::Tailwater,
            "recovery: what follows the checkpoint",
            round,
        ));
    }
    Ok(contestants)
}

fn sizes(scale: &Scale) -> Vec<u64> {
    if scale.is_quick { vec![4 << 20] } else { scale.open_bytes.clone() }
}

/// Opens the log, which must be found in a certain state, and closes it.
fn timed_open(directory: &Path, expected: RecoveryOutcome) -> Result<Vec<f64>> {
    let start = Instant::now();
    let log = subject::open(directory, Durability::Durable)?;
    let opened = start.elapsed();
    subject::read(&log, log.durable_offset().get() - 1)?;
    let read = start.elapsed();
    let found = log.recovery_report().outcome;
    if found != expected {
        return Err(format!("the log was found {found:?}, and should have been {expected:?}").into());
    }
    log.close()?;
    Ok(vec![milliseconds(opened), milliseconds(read)])
}

/// Appends durable batches until the log's records take `size_bytes`.
fn fill(log: &Log, size_bytes: u64) -> Result<()> {
    while log.log_end_offset().get() * (VALUE_BYTES as u64) < size_bytes {
        append_batch(log)?;
    }
    Ok(())
}

fn append_batch(log: &Log) -> Result<()> {
    let value = value(VALUE_BYTES);
    let batch: Vec<_> = (0..BATCH_RECORDS).map(|_| NewRecord::new(&value)).collect();
    log.append(&batch, None, WhenFull::Wait)?.wait()?;
    // What a broker does in the background.
    log.maintain()?;
    Ok(())
}

/// Has this program, run again, append to the log in `directory` until it holds `size_bytes`, and kills it while it goes on.
fn kill_a_writer(directory: &Path, size_bytes: u64) -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .env(CHILD_DIRECTORY, directory)
        .env(CHILD_BYTES, size_bytes.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let said = child.stdout.take().map(BufReader::new).and_then(|out| out.lines().next());
    // It is somewhere in an append by then, at a place that differs from kill to kill.
    std::thread::sleep(Duration::from_micros(scattered(20_000)() + size_bytes % 7_919));
    child.kill()?;
    child.wait()?;
    match said {
        Some(Ok(line)) if line == READY => Ok(()),
        said => Err(format!("the process that was to write a log said {said:?} instead of {READY:?}").into()),
    }
}

/// If this process was started to write a log until it is killed: does that. Called first in `main`.
///
/// # Errors
///
/// Those of the log.
pub fn write_if_asked() -> Result<()> {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return Ok(()) };
    let size_bytes = std::env::var(CHILD_BYTES)?.parse()?;
    let options = subject::options(Durability::Durable);
    let log = Log::open(Arc::new(Disk), &PathBuf::from(directory).join("log"), options)?;
    fill(&log, size_bytes)?;
    writeln!(std::io::stdout(), "{READY}")?;
    loop {
        append_batch(&log)?;
    }
}

fn milliseconds(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64() * 1e3
}

/// A size in the largest unit that divides it.
fn human(size_bytes: u64) -> String {
    match size_bytes {
        bytes if bytes % (1 << 30) == 0 => format!("{} GiB", bytes >> 30),
        bytes if bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        bytes => format!("{bytes} B"),
    }
}
