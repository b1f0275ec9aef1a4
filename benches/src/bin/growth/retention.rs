//! A large partition of which retention deletes nearly all: how long that takes, and what it costs those who append and read
//! meanwhile.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tailwater_benches::contest::{Result, Scale};
use tailwater_benches::measure::Latencies;
use tailwater_benches::subject;
use tailwater_log::{Durability, FetchIsolation, FetchLimits, Fetched, Log, Offset};

use crate::tail;

/// What retention leaves, in bytes, or a quarter of what there is.
const KEPT_BYTES: u64 = 64 << 20;
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// What one run of appends came to, in microseconds by quantile.
type Quantiles = [f64; QUANTILES.len()];

/// Measures a partition of `size_bytes` and writes the results. Returns the Markdown.
pub(super) fn write(scale: &Scale, out: &Path, head: &str, size_bytes: u64) -> Result<String> {
    let directory = scale.directory()?;
    let size_bytes = if scale.is_quick { 8 << 20 } else { size_bytes };
    let mut options = subject::options(Durability::Durable);
    // Whole segments go, so there have to be some.
    let most_bytes = u32::try_from(size_bytes / 8).unwrap_or(u32::MAX);
    options.config.segment_bytes = options.config.segment_bytes.min(most_bytes);
    let log = subject::create_with(directory.path(), options)?;
    tail::fill(&log, size_bytes)?;
    let held = read_start(&log)?;
    let before = checksum(&held);

    let alone = quantiles(&tail::append(scale, &log, Durability::Durable)?);
    let is_over = AtomicBool::new(false);
    let (beside, retained) = std::thread::scope(|scope| {
        let retaining = scope.spawn(|| retain(&log, KEPT_BYTES.min(size_bytes / 4), &is_over));
        let appended = tail::append(scale, &log, Durability::Durable);
        is_over.store(true, Ordering::SeqCst);
        let retained = retaining.join().unwrap_or_else(|_| Err("a thread panicked".into()));
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((quantiles(&appended?), retained?))
    })?;
    if checksum(&held) != before {
        return Err("a reader inside was disturbed".into());
    }
    let text = table(size_bytes, [("nothing else", alone), ("retention", beside)], &retained);
    std::fs::write(out.join("retention.md"), format!("{head}\n{text}"))?;
    Ok(format!("{head}\n{text}"))
}

/// What retention did.
struct Retained {
    start_moved: Duration,
    files_removed: Duration,
    segments: u64,
    pinned_bytes: u64,
}

/// Deletes all but `kept_bytes`, as a broker does in the background.
fn retain(log: &Log, kept_bytes: u64, is_over: &AtomicBool) -> Result<Retained> {
    let mut config = (*log.config()).clone();
    config.retention_bytes = Some(kept_bytes);
    log.set_config(config)?;
    // What is to go lies in sealed segments.
    log.roll()?;
    std::thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    if !log.retain(None)?.did_delete || log.log_start_offset() == Offset::ZERO {
        return Err("nothing was deleted".into());
    }
    let start_moved = start.elapsed();
    let mut files_removed = None;
    while !is_over.load(Ordering::SeqCst) || files_removed.is_none() {
        let report = log.maintain()?;
        if log.stats()?.removals.waiting_segments == 0 {
            files_removed.get_or_insert(start.elapsed());
        }
        std::thread::sleep(Duration::from_millis(report.next_due_ms.unwrap_or(50).clamp(1, 50)));
    }
    let removals = log.stats()?.removals;
    Ok(Retained {
        start_moved,
        files_removed: files_removed.unwrap_or_default(),
        segments: removals.removed_segments,
        pinned_bytes: removals.pinned_bytes,
    })
}

fn read_start(log: &Log) -> Result<Fetched> {
    Ok(log.fetch(Offset::ZERO, FetchLimits::default(), FetchIsolation::Visible, None)?)
}

fn checksum(fetched: &Fetched) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    fetched.iter().filter_map(|record| record.value()).for_each(|value| hasher.update(value));
    hasher.finalize()
}

fn quantiles(latencies: &Latencies) -> Quantiles {
    QUANTILES.map(|(_, quantile)| latencies.quantile_us(quantile))
}

fn table(size_bytes: u64, rows: [(&str, Quantiles); 2], retained: &Retained) -> String {
    let mut text = format!("## Retention of {} MiB\n\n", size_bytes >> 20);
    let names = QUANTILES.map(|(name, _)| name).join(" | ");
    let _ = writeln!(text, "`durable` appends of 1 KiB at 1,000 a second, in us:\n");
    let _ = writeln!(text, "| Beside | {names} |\n|---|{}", "---|".repeat(QUANTILES.len()));
    for (name, figures) in rows {
        let figures = figures.map(|figure| format!("{figure:.0}")).join(" | ");
        let _ = writeln!(text, "| {name} | {figures} |");
    }
    let Retained { start_moved, files_removed, segments, pinned_bytes } = retained;
    let _ = writeln!(
        text,
        "\nThe log start was durable after {:.2} ms, and {segments} files were removed after {:.2} s. A reader that held {} KiB of \
         them read what it had read before.",
        start_moved.as_secs_f64() * 1e3,
        files_removed.as_secs_f64(),
        pinned_bytes >> 10,
    );
    text
}
