//! Compaction of many records of fewer keys: what it keeps, the memory it takes, and what appends feel of it.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use tailwater_benches::contest::{Result, Scale};
use tailwater_benches::measure::{Latencies, spin_until};
use tailwater_benches::subject;
use tailwater_log::{
    CleanupPolicy, CompactionLimits, Durability, FetchIsolation, FetchLimits, Log, NewRecord, WhenFull,
};

const RECORDS: u64 = 10_000_000;
const KEYS: u64 = 1_000_000;
const VALUE_BYTES: usize = 100;
const BATCH: u64 = 500;
const SEGMENT_BYTES: u32 = 64 << 20;
/// So many appends a second are made beside it, each waited for.
const APPENDS_PER_SECOND: u32 = 500;
/// How long they are made alone, before and after, to compare with.
const ALONE: Duration = Duration::from_secs(15);

/// Compacts once and writes what that took. Returns the Markdown.
pub(super) fn write(scale: &Scale, out: &Path, head: &str, heap: &PeakAlloc) -> Result<String> {
    let (records, keys) = (scale.count(RECORDS), scale.count(KEYS).max(1));
    let directory = scale.directory()?;
    let mut options = subject::options(Durability::Durable);
    options.config.cleanup_policy = CleanupPolicy::Compact;
    options.config.segment_bytes = SEGMENT_BYTES;
    let map_bytes = options.config.compaction_map_bytes;
    let log = subject::create_with(directory.path(), options)?;
    fill(&log, records, keys)?;

    let alone = if scale.is_quick { Duration::from_millis(200) } else { ALONE };
    let before = append_during(&log, || {
        std::thread::sleep(alone);
        Ok(())
    })?;
    let heap_before = heap.current_usage();
    heap.reset_peak_usage();
    let started = Instant::now();
    let mut report = None;
    let beside = append_during(&log, || {
        report = Some(log.compact(&CompactionLimits::default(), &mut |_| ControlFlow::Continue(()))?);
        Ok(())
    })?;
    let took = started.elapsed();
    let heap_bytes = heap.peak_usage().saturating_sub(heap_before);
    let after = append_during(&log, || {
        std::thread::sleep(alone);
        Ok(())
    })?;
    let report = report.ok_or("there is no report")?;
    check(&log, records, keys)?;

    let mut text = format!(
        "{head}\n## Compaction\n\n{records} records of {VALUE_BYTES} B, {keys} keys, segments of {} MiB, {} MiB for keys: exactly the last \
         record of each key is left. {} passes, {:.1} s, {:.0} MB became {:.0} MB, {} segments {}; at most {:.1} MiB of heap more than before.\n\n\
         Durable appends of one record, {APPENDS_PER_SECOND} a second:\n\n| | p50, us | p99, us | p99.9, us | max, us |\n|---|---|---|---|---|\n",
        SEGMENT_BYTES >> 20,
        map_bytes >> 20,
        report.passes,
        took.as_secs_f64(),
        report.bytes_before as f64 / 1e6,
        report.bytes_after as f64 / 1e6,
        report.segments_in,
        report.segments_out,
        heap_bytes as f64 / f64::from(1 << 20),
    );
    for (name, latencies) in [("before", &before), ("beside compaction", &beside), ("after", &after)] {
        let [p50, p99, p999, max] = [0.5, 0.99, 0.999, 1.0].map(|quantile| latencies.quantile_us(quantile));
        text.push_str(&format!("| {name} | {p50:.0} | {p99:.0} | {p999:.0} | {max:.0} |\n"));
    }
    std::fs::write(out.join("compaction.md"), &text)?;
    Ok(text)
}

/// The key of the `n`th record: all of them, again and again, in an order that is no order.
fn key_of(n: u64, keys: u64) -> [u8; 8] {
    let round = n / keys;
    // Coprime to any number of keys that is not a multiple of it.
    const STEP: u64 = 7_368_787;
    ((n % keys).wrapping_mul(STEP).wrapping_add(round * 31) % keys).to_le_bytes()
}

fn fill(log: &Log, records: u64, keys: u64) -> Result<()> {
    let mut value = vec![b'v'; VALUE_BYTES];
    let mut next = 0;
    while next < records {
        let end = (next + BATCH).min(records);
        let batch: Vec<_> = (next..end).map(|n| key_of(n, keys)).collect();
        value[..8].copy_from_slice(&next.to_le_bytes());
        let batch: Vec<_> =
            batch.iter().map(|key| NewRecord { key: Some(key), ..NewRecord::new(&value) }).collect();
        drop(log.append(&batch, Some(Durability::Buffered), WhenFull::Wait)?);
        next = end;
        if next % (BATCH * 400) == 0 {
            log.sync()?;
            log.maintain()?;
        }
    }
    log.roll()?;
    log.sync()?;
    log.maintain()?;
    Ok(())
}

/// Appends at a fixed rate while `work` is done. A latency counts from when the append was due.
fn append_during(log: &Log, work: impl FnOnce() -> Result<()>) -> Result<Latencies> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let appending = scope.spawn(|| -> Result<Latencies> {
            let mut latencies = Latencies::new()?;
            let (value, interval) = ([b'a'; VALUE_BYTES], Duration::from_secs(1) / APPENDS_PER_SECOND);
            let mut due = Instant::now();
            while !is_over.load(Ordering::SeqCst) {
                due += interval;
                spin_until(due);
                let record = NewRecord { key: Some(b"appended beside it"), ..NewRecord::new(&value) };
                log.append(&[record], None, WhenFull::Wait)?.wait()?;
                latencies.note(due.elapsed());
            }
            Ok(latencies)
        });
        let done = work();
        is_over.store(true, Ordering::SeqCst);
        let latencies = appending.join().unwrap_or_else(|_| Err("a thread panicked".into()));
        done.and(latencies)
    })
}

/// Whether of the records that were there before just the last of each key is left.
fn check(log: &Log, records: u64, keys: u64) -> Result<()> {
    let mut last: HashMap<[u8; 8], u64> = HashMap::new();
    for n in records.saturating_sub(keys)..records {
        last.insert(key_of(n, keys), n);
    }
    let (mut from, mut hint) = (log.log_start_offset(), None);
    let mut found = 0;
    while from.get() < records {
        let fetched = log.fetch(from, FetchLimits::default(), FetchIsolation::Visible, hint)?;
        for record in fetched.iter().filter(|record| record.offset().get() < records) {
            let key = record.key().unwrap_or_default();
            let is_last =
                <[u8; 8]>::try_from(key).ok().and_then(|key| last.get(&key)) == Some(&record.offset().get());
            if !is_last {
                return Err(format!("the record at {} is not the last of its key", record.offset()).into());
            }
            found += 1;
        }
        (from, hint) = (fetched.next_offset(), fetched.hint());
    }
    if found == last.len() { Ok(()) } else { Err(format!("{found} of {} keys are left", last.len()).into()) }
}
