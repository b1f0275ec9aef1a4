//! What was measured, as a table with bars and a few sentences, or as JSON.

use std::path::Path;

use serde::Serialize;

use super::measure::{Compared, Figures, Latencies};
use crate::args::{BenchArgs, Workload};
use crate::exit::Result;
use crate::output::{self, Column, print_table};

/// Cells of a bar that is full: as fast as the bare loop.
const BAR_CELLS: usize = 20;
/// From this speed on, what the bare loop waits for is what Tailwater waits for.
const NEARLY_ALL: f64 = 0.9;
/// From this speed on, it is most of that.
const MOST: f64 = 0.5;

/// How many times as fast one round of a bare loop may be as another before that is told.
const STEADY: f64 = 4.0;

/// A workload and what came of it.
pub(super) struct Measured {
    pub(super) workload: Workload,
    pub(super) record_bytes: usize,
    pub(super) threads: usize,
    pub(super) rounds: u32,
    pub(super) compared: Compared,
    pub(super) bare: Figures,
    pub(super) tailwater: Figures,
}

#[derive(Serialize)]
struct Shown {
    workload: &'static str,
    record_bytes: usize,
    threads: usize,
    rounds: u32,
    compared: &'static str,
    speed: f64,
    least_speed: f64,
    greatest_speed: f64,
    tailwater: ShownSide,
    bare: ShownSide,
}

#[derive(Serialize)]
struct ShownSide {
    records: u64,
    records_per_second: f64,
    latency_us: Option<ShownLatency>,
}

#[derive(Serialize)]
struct ShownLatency {
    p50: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

/// Prints an object for each workload.
pub(super) fn print_json(done: &[Measured]) -> Result<()> {
    output::print_json(&done.iter().map(shown).collect::<Vec<_>>())
}

fn shown(measured: &Measured) -> Shown {
    let speed = measured.tailwater.speed(&measured.bare, measured.compared);
    Shown {
        workload: measured.workload.name(),
        record_bytes: measured.record_bytes,
        threads: measured.threads,
        rounds: measured.rounds,
        compared: match measured.compared {
            Compared::Rate => "records_per_second",
            Compared::Median => "p50_us",
        },
        speed: rounded(speed.of_all),
        least_speed: rounded(speed.least),
        greatest_speed: rounded(speed.greatest),
        tailwater: shown_side(&measured.tailwater),
        bare: shown_side(&measured.bare),
    }
}

fn shown_side(figures: &Figures) -> ShownSide {
    let latency_us = figures.latencies.as_ref().map(|latencies| {
        let [p50, p99, p99_9, max] = quantiles_us(latencies);
        ShownLatency { p50, p99, p99_9, max }
    });
    ShownSide { records: figures.records, records_per_second: rounded(figures.rate()), latency_us }
}

fn quantiles_us(latencies: &Latencies) -> [f64; 4] {
    [0.5, 0.99, 0.999, 1.0].map(|quantile| latencies.quantile_us(quantile))
}

/// To three decimals.
fn rounded(figure: f64) -> f64 {
    (figure * 1_000.0).round() / 1_000.0
}

/// Prints the table of speeds, that of latencies, and what they mean for syncs.
pub(super) fn print(directory: &Path, args: &BenchArgs, rounds: u32, done: &[Measured]) -> Result<()> {
    let turns = if rounds == 1 { "once each".to_owned() } else { format!("{rounds} rounds") };
    output::print(&format!("records of {} bytes in {}, {turns}\n", args.record_size, directory.display()))?;
    print_speeds(done)?;
    print_latencies(done)?;
    let words = sentences(done);
    if words.is_empty() { Ok(()) } else { output::print(&format!("\n{}", words.join("\n"))) }
}

fn print_speeds(done: &[Measured]) -> Result<()> {
    let rows = done.iter().map(|measured| {
        let speed = measured.tailwater.speed(&measured.bare, measured.compared).of_all;
        vec![
            measured.workload.name().to_owned(),
            figure(measured, &measured.tailwater),
            figure(measured, &measured.bare),
            format!("{:.0} %", 100.0 * speed),
            bar(speed),
        ]
    });
    print_table(
        &[
            Column::Text("WORKLOAD"),
            Column::Number("TAILWATER"),
            Column::Number("BARE LOOP"),
            Column::Number("SPEED"),
            Column::Text("FULL = THE BARE LOOP"),
        ],
        rows.collect(),
    )
}

fn print_latencies(done: &[Measured]) -> Result<()> {
    let mut rows = Vec::new();
    for measured in done {
        for (side, figures) in [("tailwater", &measured.tailwater), ("bare loop", &measured.bare)] {
            let Some(latencies) = &figures.latencies else { continue };
            let mut row = vec![measured.workload.name().to_owned(), side.to_owned()];
            row.extend(quantiles_us(latencies).map(time));
            rows.push(row);
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    output::print("")?;
    print_table(
        &[
            Column::Text("LATENCY"),
            Column::Text(""),
            Column::Number("P50"),
            Column::Number("P99"),
            Column::Number("P99.9"),
            Column::Number("MAX"),
        ],
        rows,
    )
}

/// What is compared, with its unit.
fn figure(measured: &Measured, figures: &Figures) -> String {
    match (measured.compared, &figures.latencies) {
        (Compared::Median, Some(latencies)) => time(latencies.p50_us()),
        _ if measured.workload == Workload::Scan => {
            format!("{}B/s", number(figures.rate() * measured.record_bytes as f64))
        }
        _ => format!("{}/s", number(figures.rate())),
    }
}

/// What the durable workloads say about this disk.
fn sentences(done: &[Measured]) -> Vec<String> {
    let find = |workload: Workload| done.iter().find(|measured| measured.workload == workload);
    let mut lines = Vec::new();
    let one = find(Workload::DurableOne);
    if let Some(one) = one
        && let (Some(own), Some(bare)) = (&one.tailwater.latencies, &one.bare.latencies)
    {
        let (own_us, bare_us) = (own.p50_us(), bare.p50_us());
        let speed = one.tailwater.speed(&one.bare, one.compared).of_all;
        let sync = format!("A sync takes {}", time(bare_us));
        lines.push(match speed {
            speed if speed >= NEARLY_ALL => {
                format!("{sync} on this disk: that is what one thread waits for.")
            }
            speed if speed >= MOST => {
                format!("{sync}, and one thread waits {}, mostly for the disk.", time(own_us))
            }
            _ => format!("{sync}, and one thread waits {}, mostly for Tailwater.", time(own_us)),
        });
    }
    let times = |measured: &Measured| {
        one.map_or(String::new(), |one| {
            let times = measured.tailwater.rate() / one.tailwater.rate();
            format!(
                ", {}",
                match times {
                    times if times < 1.1 => "no more than one that waits".to_owned(),
                    times => format!("{} times one that waits", number(times)),
                }
            )
        })
    };
    if let Some(many) = find(Workload::DurableThreads) {
        lines.push(format!(
            "{} threads that wait: {} records/s{}.",
            many.threads,
            number(many.tailwater.rate()),
            times(many)
        ));
    }
    if let Some(pipelined) = find(Workload::DurablePipelined) {
        lines.push(format!(
            "One thread that sends ahead: {} records/s{}.",
            number(pipelined.tailwater.rate()),
            times(pipelined)
        ));
    }
    lines.extend(unsteady(done));
    lines
}

/// Names the workload whose bare loop was the least steady, if it was far from steady.
fn unsteady(done: &[Measured]) -> Option<String> {
    let worst =
        done.iter().max_by(|one, other| one.bare.unsteadiness().total_cmp(&other.bare.unsteadiness()))?;
    let times = worst.bare.unsteadiness();
    (times > STEADY).then(|| {
        format!(
            "The bare loop of {} was {} times as fast in one round as in another:\n\
             something else uses this disk or these processors. Measure again when it does not.",
            worst.workload.name(),
            three_digits(times)
        )
    })
}

/// A bar of a speed. Faster than the bare loop is a full bar and a `+`.
fn bar(speed: f64) -> String {
    let cells = (0..BAR_CELLS).map(|cell| {
        // A cell is full from its middle on.
        if speed * BAR_CELLS as f64 > cell as f64 + 0.5 { '█' } else { '░' }
    });
    let more = if speed * BAR_CELLS as f64 > BAR_CELLS as f64 + 0.5 { "+" } else { "" };
    cells.collect::<String>() + more
}

/// Three digits, and a prefix for thousands, millions and more. A space comes before the prefix, or what may follow it.
fn number(figure: f64) -> String {
    let (figure, prefix) = match figure.abs() {
        size if size >= 1e9 => (figure / 1e9, " G"),
        size if size >= 1e6 => (figure / 1e6, " M"),
        size if size >= 1e4 => (figure / 1e3, " k"),
        _ => (figure, ""),
    };
    format!("{}{prefix}", three_digits(figure))
}

fn three_digits(figure: f64) -> String {
    let digits = match figure.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    format!("{figure:.digits$}")
}

/// A time in microseconds, in the unit that fits.
fn time(us: f64) -> String {
    match us {
        us if us >= 999_500.0 => format!("{} s", three_digits(us / 1e6)),
        us if us >= 999.5 => format!("{} ms", three_digits(us / 1e3)),
        us => format!("{} us", three_digits(us)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::measure::Round;
    use super::*;

    fn side(records: u64, us: Option<u64>) -> Figures {
        let mut figures = Figures::default();
        let latencies = us.map(|us| {
            let mut latencies = Latencies::new().unwrap();
            latencies.note(Duration::from_micros(us));
            latencies
        });
        figures.add(Round { records, elapsed: Duration::from_secs(1), latencies }).unwrap();
        figures
    }

    fn measured(workload: Workload, tailwater: Figures, bare: Figures) -> Measured {
        let compared = if workload == Workload::DurableOne { Compared::Median } else { Compared::Rate };
        Measured { workload, record_bytes: 1024, threads: 16, rounds: 1, compared, bare, tailwater }
    }

    #[test]
    fn a_bar_is_full_where_it_is_as_fast() {
        let cells = |speed: f64| bar(speed).chars().filter(|cell| *cell == '█').count();
        assert_eq!([0.0, 0.02, 0.5, 0.97, 0.98, 1.0, 3.0].map(cells), [0, 0, 10, 19, 20, 20, 20]);
        assert_eq!([1.0, 1.02, 1.03, 3.0].map(|speed| bar(speed).ends_with('+')), [false, false, true, true]);
        assert_eq!(bar(0.5), "██████████░░░░░░░░░░");
    }

    #[test]
    fn numbers_have_three_digits_and_times_their_unit() {
        let texts = [1_234_567.0, 56_789.0, 1_234.0, 123.4, 12.34, 0.123, 2.1e9].map(number);
        assert_eq!(texts, ["1.23 M", "56.8 k", "1234", "123", "12.3", "0.12", "2.10 G"]);
        let texts = [0.5, 7.1, 171.2, 999.6, 1_234.0, 25_000.0, 2_310_000.0].map(time);
        assert_eq!(texts, ["0.50 us", "7.10 us", "171 us", "1.00 ms", "1.23 ms", "25.0 ms", "2.31 s"]);
    }

    #[test]
    fn the_disk_or_tailwater_is_named_as_the_limit() {
        let one = |own_us, bare_us| {
            measured(Workload::DurableOne, side(5_000, Some(own_us)), side(6_000, Some(bare_us)))
        };
        let many = measured(Workload::DurableThreads, side(40_000, None), side(40_000, None));
        let pipelined = measured(Workload::DurablePipelined, side(5_000, None), side(90_000, None));
        assert_eq!(
            sentences(&[one(320, 310), many, pipelined]),
            [
                "A sync takes 310 us on this disk: that is what one thread waits for.",
                "16 threads that wait: 40.0 k records/s, 8.00 times one that waits.",
                "One thread that sends ahead: 5000 records/s, no more than one that waits.",
            ]
        );
        let slower = sentences(&[one(500, 310)]);
        assert_eq!(slower, ["A sync takes 310 us, and one thread waits 500 us, mostly for the disk."]);
        let limited = sentences(&[one(900, 310)]);
        assert_eq!(limited, ["A sync takes 310 us, and one thread waits 900 us, mostly for Tailwater."]);
        assert!(sentences(&[]).is_empty());
        let mut noisy = one(320, 310);
        noisy.bare.add(Round { records: 1_000, elapsed: Duration::from_secs(1), latencies: None }).unwrap();
        let told = sentences(&[noisy]).pop().unwrap();
        assert!(
            told.starts_with("The bare loop of durable-one was 6.00 times as fast in one round"),
            "{told}"
        );
    }
}
