//! Runs everything once and small, so that no measurement rots unnoticed.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::process::{Command, Output};

use tailwater_benches::rows;
use tempfile::TempDir;

/// A directory on the disk that holds the build.
fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

fn succeed(program: &str, arguments: &[&str]) {
    let output = run(program, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
}

#[test]
fn every_workload_of_the_comparison_runs_and_is_reported() {
    let directory = directory();
    succeed(env!("CARGO_BIN_EXE_compare"), &["--quick", directory.path().to_str().unwrap()]);

    let text = std::fs::read_to_string(directory.path().join("results.md")).unwrap();
    let csv = std::fs::read_to_string(directory.path().join("results.csv")).unwrap();
    let measured: BTreeSet<&str> = csv.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    assert_eq!(measured, rows::ALL.iter().map(|row| row.name).collect());
    for row in rows::ALL {
        assert!(text.contains(&format!("## {}", row.title)), "{}", row.name);
        let plot = std::fs::read_to_string(directory.path().join(format!("{}.svg", row.name))).unwrap();
        assert!(plot.contains("<svg") && plot.contains("tailwater"), "{}", row.name);
    }
    for line in csv.lines().skip(1) {
        let figure: f64 = line.rsplit(',').next().unwrap().parse().unwrap();
        assert!(figure.is_finite() && figure >= 0.0, "{line}");
    }
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("bench-"))
        .collect();
    assert_eq!(left, [""; 0], "what was measured is removed");
}

#[test]
fn what_else_was_tried_runs_and_is_reported() {
    let directory = directory();
    succeed(env!("CARGO_BIN_EXE_compare"), &["--quick", "--tried", directory.path().to_str().unwrap()]);
    let csv = std::fs::read_to_string(directory.path().join("results.csv")).unwrap();
    let measured: BTreeSet<&str> = csv.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    assert_eq!(measured, rows::TRIED.iter().map(|row| row.name).collect());
}

#[test]
fn unknown_names_are_refused_before_anything_runs() {
    let directory = directory();
    let results = directory.path().to_str().unwrap();
    for (arguments, wanted) in [
        (["--row", "nonsense"], "there is no workload \"nonsense\""),
        (["--peers", "nonsense"], "\"nonsense\""),
        (["--open-size", "1GB"], "use B, KiB, MiB or GiB"),
    ] {
        let output = run(env!("CARGO_BIN_EXE_compare"), &[arguments[0], arguments[1], results]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(wanted), "{arguments:?}: {said}");
    }
}

#[test]
fn every_measurement_of_growth_runs_and_is_written() {
    let directory = directory();
    succeed(env!("CARGO_BIN_EXE_growth"), &["--quick", "--out", directory.path().to_str().unwrap(), "all"]);
    let names = [
        "size",
        "partitions",
        "producers",
        "consumers",
        "record-size",
        "batch-size",
        "tail-written",
        "tail-durable",
    ];
    for name in names {
        for extension in ["md", "csv", "svg"] {
            let path = directory.path().join(format!("{name}.{extension}"));
            let text =
                std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(text.lines().count() >= 3, "{}: {text}", path.display());
        }
    }
}
