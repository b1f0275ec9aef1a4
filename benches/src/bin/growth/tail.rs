//! Latency of appends while segments roll, records are deleted, and a reader scans cold data.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tailwater_benches::contest::{self, Contestant, Metric, Result, Role, Row, Scale};
use tailwater_benches::measure::{Latencies, spin_until};
use tailwater_benches::rows::{VALUE_BYTES, value};
use tailwater_benches::{report, subject};
use tailwater_log::{Durability, FetchIsolation, FetchLimits, Log, Offset};

const METRICS: &[Metric] = &[
    Metric::time("p99.9", "us"),
    Metric::time("p50", "us"),
    Metric::time("p99", "us"),
    Metric::time("max", "us"),
];

const WRITTEN: Row = Row {
    name: "tail-written",
    title: "`written` appends at 10,000 a second, 1 KiB",
    metrics: METRICS,
    targets: &[],
    prepare: |scale| Ok(scenarios(scale, Durability::Written)),
};

const DURABLE: Row = Row {
    name: "tail-durable",
    title: "`durable` appends at 1,000 a second, 1 KiB",
    metrics: METRICS,
    targets: &[],
    prepare: |scale| Ok(scenarios(scale, Durability::Durable)),
};

const ROUNDS: usize = 3;
/// Where segments roll often, they have this size.
const SMALL_SEGMENT_BYTES: u32 = 4 << 20;
/// How much is there before, for the reader to scan.
const OLD_BYTES: u64 = 512 << 20;

/// What happens beside the appends.
#[derive(Clone, Copy)]
struct Scenario {
    name: &'static str,
    rolls: bool,
    deletes: bool,
    scans: bool,
}

const SCENARIOS: [Scenario; 5] = [
    Scenario { name: "nothing else", rolls: false, deletes: false, scans: false },
    Scenario { name: "segments roll", rolls: true, deletes: false, scans: false },
    Scenario { name: "roll, delete", rolls: true, deletes: true, scans: false },
    Scenario { name: "cold scan", rolls: false, deletes: false, scans: true },
    Scenario { name: "all of it", rolls: true, deletes: true, scans: true },
];

/// Runs all scenarios at both durabilities and writes the results. Returns the Markdown.
pub(super) fn write(scale: &Scale, out: &Path, head: &str) -> Result<String> {
    let rounds = if scale.is_quick { 1 } else { ROUNDS };
    let mut text = head.to_owned();
    for row in [&WRITTEN, &DURABLE] {
        let done = [(row, contest::run(row, scale, rounds, &mut |_| {})?)];
        let figures = report::figures(&done);
        std::fs::write(out.join(format!("{}.csv", row.name)), report::csv(&done))?;
        std::fs::write(out.join(format!("{}.md", row.name)), format!("{head}\n{figures}"))?;
        tailwater_benches::plot::bars(&out.join(format!("{}.svg", row.name)), row, &done[0].1)?;
        text.push_str(&format!("\n{figures}"));
    }
    Ok(text)
}

fn scenarios(scale: &Scale, durability: Durability) -> Vec<Contestant> {
    let contestant = |scenario: Scenario| {
        let scale = scale.clone();
        let note = match (scenario.rolls, scenario.scans) {
            (true, _) => "segments of 4 MiB",
            (false, true) => {
                "segments of 1 GiB; a reader goes through 512 MiB that the kernel was told to forget"
            }
            (false, false) => "segments of 1 GiB",
        };
        Contestant::new(scenario.name, Role::Tailwater, note, move || run(&scale, scenario, durability))
    };
    SCENARIOS.map(contestant).into()
}

fn run(scale: &Scale, scenario: Scenario, durability: Durability) -> Result<Vec<f64>> {
    let directory = scale.directory()?;
    let mut options = subject::options(durability);
    if scenario.rolls {
        options.config.segment_bytes = SMALL_SEGMENT_BYTES;
    }
    let log = subject::create_with(directory.path(), options)?;
    if scenario.scans {
        fill(&log, if scale.is_quick { 2 << 20 } else { OLD_BYTES })?;
    }
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| maintain(&log, scenario, &is_over));
        let reading = scenario.scans.then(|| scope.spawn(|| scan_cold(&log, directory.path(), &is_over)));
        let latencies = append(scale, &log, durability);
        is_over.store(true, Ordering::SeqCst);
        let panicked = || Err("a thread panicked".into());
        beside.join().unwrap_or_else(|_| panicked())?;
        reading.map_or(Ok(()), |reading| reading.join().unwrap_or_else(|_| panicked()))?;
        let latencies = latencies?;
        Ok([0.999, 0.5, 0.99, 1.0].map(|quantile| latencies.quantile_us(quantile)).into())
    })
}

pub(super) fn fill(log: &Log, size_bytes: u64) -> Result<()> {
    let value = value(VALUE_BYTES);
    let lazily = Some(Durability::Buffered);
    for _ in 0..size_bytes / VALUE_BYTES as u64 {
        drop(log.append(&[tailwater_log::NewRecord::new(&value)], lazily, tailwater_log::WhenFull::Wait)?);
    }
    log.sync()?;
    log.maintain()?;
    Ok(())
}

/// Appends at a fixed rate. A latency counts from when the append was due, so that one that is late makes those behind it
/// late too.
pub(super) fn append(scale: &Scale, log: &Log, durability: Durability) -> Result<Latencies> {
    let (count, per_second) = match durability {
        Durability::Durable => (scale.count(5_000), 1_000),
        _ => (scale.count(50_000), 10_000),
    };
    let value = value(VALUE_BYTES);
    let interval = Duration::from_secs(1) / per_second;
    let mut latencies = Latencies::new()?;
    // The first append makes what later ones find.
    subject::append(log, &value)?;
    let mut due = Instant::now();
    for _ in 0..count {
        due += interval;
        spin_until(due);
        subject::append(log, &value)?;
        latencies.note(due.elapsed());
    }
    Ok(latencies)
}

/// Does what a broker does in the background, and deletes all but the latest 16 MiB if it is to.
fn maintain(log: &Log, scenario: Scenario, is_over: &AtomicBool) -> Result<()> {
    while !is_over.load(Ordering::SeqCst) {
        log.maintain()?;
        if scenario.deletes && !scenario.scans {
            let keep = (16 << 20) / VALUE_BYTES as u64;
            log.delete_records_before(Offset::new(log.durable_offset().get().saturating_sub(keep)))?;
        } else if scenario.deletes {
            // A little at a time, so that the reader has something left.
            let step = (4 << 20) / VALUE_BYTES as u64;
            let start = log.log_start_offset().get() + step;
            log.delete_records_before(Offset::new(start.min(log.durable_offset().get())))?;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Reads from the start on, again and again; before each round the kernel is told to forget the files.
fn scan_cold(log: &Log, directory: &Path, is_over: &AtomicBool) -> Result<()> {
    while !is_over.load(Ordering::SeqCst) {
        for entry in std::fs::read_dir(directory.join("log"))? {
            // A segment may be deleted meanwhile.
            if let Ok(file) = std::fs::File::open(entry?.path()) {
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
            }
        }
        let (mut from, mut hint) = (log.log_start_offset(), None);
        while !is_over.load(Ordering::SeqCst) {
            let fetched = match log.fetch(from, FetchLimits::default(), FetchIsolation::Visible, hint) {
                Ok(fetched) => fetched,
                Err(tailwater_log::Error::OffsetOutOfRange { .. }) => break,
                Err(error) => return Err(error.into()),
            };
            if fetched.next_offset() == from {
                break;
            }
            std::hint::black_box(
                fetched.iter().filter_map(|record| record.value()).map(<[u8]>::len).sum::<usize>(),
            );
            (from, hint) = (fetched.next_offset(), fetched.hint());
        }
    }
    Ok(())
}
