//! Would advice about a map make reading it faster?

use std::fs::File;
use std::rc::Rc;
use std::time::Instant;

use memmap2::Advice;

use super::{VALUE_BYTES, value};
use crate::baseline::HEADER_BYTES;
use crate::baseline::map::Map;
use crate::baseline::staged::Staged;
use crate::baseline::walk::walk;
use crate::contest::{Better, Contestant, Metric, Result, Role, Row, Scale};
use crate::measure::scattered;

/// Ways to map a file that is in the page cache.
pub(super) const ROW: Row = Row {
    name: "tried-map",
    title: "a new map of 1 GiB in the page cache, 1 KiB records: advice",
    metrics: &[
        Metric { name: "first scan", unit: "GB/s", better: Better::Higher },
        Metric { name: "second scan", unit: "GB/s", better: Better::Higher },
        Metric::time("random read", "us"),
    ],
    targets: &[],
    prepare: contestants,
};

fn contestants(scale: &Scale) -> Result<Vec<Contestant>> {
    let count = scale.count(1 << 20);
    let value = value(VALUE_BYTES);
    let record_bytes = HEADER_BYTES + VALUE_BYTES;
    let length_bytes = record_bytes * usize::try_from(count)?;
    let directory = Rc::new(scale.directory()?);
    let mut file = Staged::create(&directory.path().join("file"), length_bytes as u64)?;
    (0..count).try_for_each(|_| file.append(&value))?;
    let file = Rc::new(file.finish()?);
    let reads = scale.count(500_000);
    let one = |name: &str, role: Role, map: fn(&File, usize) -> std::io::Result<Map>| {
        let (file, held) = (Rc::clone(&file), Rc::clone(&directory));
        let round = move || {
            let _held = &held;
            let map = map(&file, length_bytes)?;
            let first = scanned(&map, length_bytes)?;
            let second = scanned(&map, length_bytes)?;
            Ok(vec![first, second, read(&map, count, reads, record_bytes)?])
        };
        Contestant::new(name, role, "", round)
    };
    Ok(vec![
        one("no advice (as it is)", Role::Bare, Map::new),
        one("MADV_SEQUENTIAL", Role::Shown, |file, length| Map::advised(file, length, Advice::Sequential)),
        one("MADV_WILLNEED", Role::Shown, |file, length| Map::advised(file, length, Advice::WillNeed)),
        one("MADV_RANDOM", Role::Shown, |file, length| Map::advised(file, length, Advice::Random)),
        one("MADV_HUGEPAGE", Role::Shown, |file, length| Map::advised(file, length, Advice::HugePage)),
        one("MADV_POPULATE_READ", Role::Shown, |file, length| {
            Map::advised(file, length, Advice::PopulateRead)
        }),
    ])
}

fn scanned(map: &Map, length_bytes: usize) -> Result<f64> {
    let start = Instant::now();
    let (_, size_bytes) = walk(map.slice(0, length_bytes));
    Ok(size_bytes as f64 / start.elapsed().as_secs_f64() / 1e9)
}

fn read(map: &Map, count: u64, reads: u64, record_bytes: usize) -> Result<f64> {
    let mut next = scattered(count);
    let start = Instant::now();
    for _ in 0..reads {
        let at = usize::try_from(next())? * record_bytes;
        std::hint::black_box(walk(map.slice(at, at + record_bytes)));
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / reads as f64)
}
