//! `bench`: every workload has its figures, wrong arguments and directories are told, and nothing is left behind.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::system::{limited, skipped, why_not};
use common::{Data, json, signal, table};
use serde_json::Value;

const WORKLOADS: [&str; 10] = [
    "append-buffered",
    "append-written",
    "append-batches",
    "durable-one",
    "durable-threads",
    "durable-pipelined",
    "scan",
    "random-read",
    "hand-over",
    "publish-consume",
];
const WITH_LATENCIES: [&str; 3] = ["durable-one", "durable-threads", "hand-over"];

fn left_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Runs it and expects success, and nothing on standard error but, where the build is on such a file system, that it is in
/// memory. Returns standard output.
#[track_caller]
fn bench(data: &Data, arguments: &[&str]) -> String {
    let ran = data.run(&[&["bench"], arguments].concat());
    assert!(ran.code == 0 && is_quiet(&ran.stderr), "{arguments:?}: {ran:?}");
    ran.stdout
}

fn is_quiet(stderr: &str) -> bool {
    stderr.lines().all(|line| line.starts_with("warning: ") && line.contains(" is in memory ("))
}

/// What is in a row behind the name: each a number and its unit, or only a number.
fn is_positive(word: &str) -> bool {
    let digits = word.trim_end_matches(|letter: char| letter.is_alphabetic() || letter == '/');
    digits.parse::<f64>().is_ok_and(|number| number > 0.0)
}

#[test]
fn a_quick_run_prints_each_workload_beside_its_bare_loop_and_leaves_nothing() {
    let data = Data::on_disk();
    let printed = bench(&data, &["--quick"]);
    let lines = table(&printed);
    let (speeds, rest) = lines[3..].split_at(WORKLOADS.len());
    assert_eq!(speeds.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), WORKLOADS);
    for row in speeds {
        assert!(is_positive(&row[1]), "{row:?}");
        let bar = row.last().unwrap();
        assert_eq!(bar.trim_end_matches('+').chars().count(), 20, "{row:?}");
        assert_eq!(row[row.len() - 2], "%", "{row:?}");
    }
    assert_eq!(rest[1][..2], ["LATENCY", "P50"]);
    let latencies = &rest[2..2 + 2 * WITH_LATENCIES.len()];
    for (rows, name) in latencies.chunks(2).zip(WITH_LATENCIES) {
        for (row, side) in rows.iter().zip(["tailwater", "bare"]) {
            assert_eq!(row[..2], [name, side]);
            assert_eq!(row.iter().filter(|word| is_positive(word)).count(), 4, "{row:?}");
        }
    }
    assert!(printed.contains("\nA sync takes "), "{printed}");
    assert!(printed.contains("\n16 threads that wait: "), "{printed}");
    // All but the line that names the directory fits a terminal of 80 columns.
    assert!(printed.lines().skip(1).all(|line| line.chars().count() <= 80), "{printed}");
    // It was beside the data directory, which was not made.
    assert!(left_in(data.root.path()).is_empty() && !data.path().exists());
}

#[test]
fn json_has_an_object_for_each_workload() {
    let data = Data::on_disk();
    let all = json(&bench(&data, &["--quick", "--json", "--record-size", "100", "--threads", "3"]));
    let all = all.as_array().unwrap();
    assert_eq!(all.iter().map(|one| one["workload"].as_str().unwrap()).collect::<Vec<_>>(), WORKLOADS);
    for (one, name) in all.iter().zip(WORKLOADS) {
        assert_eq!((&one["record_bytes"], &one["rounds"]), (&Value::from(100), &Value::from(1)));
        assert_eq!(one["threads"], if name == "durable-threads" { 3 } else { 1 });
        let is_by_median = matches!(name, "durable-one" | "hand-over");
        assert_eq!(one["compared"], if is_by_median { "p50_us" } else { "records_per_second" });
        let number = |value: &Value| value.as_f64().unwrap();
        let speeds = ["least_speed", "speed", "greatest_speed"].map(|field| number(&one[field]));
        assert!(speeds.iter().all(|speed| *speed > 0.0), "{one}");
        for side in ["tailwater", "bare"] {
            let side = &one[side];
            assert!(side["records"].as_u64().unwrap() >= 256, "{one}");
            assert!(number(&side["records_per_second"]) > 0.0, "{one}");
            let latency = &side["latency_us"];
            if WITH_LATENCIES.contains(&name) {
                let quantiles = ["p50", "p99", "p99_9", "max"].map(|field| number(&latency[field]));
                assert!(quantiles.is_sorted() && quantiles[0] > 0.0, "{one}");
            } else {
                assert!(latency.is_null(), "{one}");
            }
        }
    }
    assert!(left_in(data.root.path()).is_empty());
}

#[test]
fn sizes_counts_and_times_are_those_that_were_asked_for() {
    let data = Data::on_disk();
    let run = |arguments: &[&str]| json(&bench(&data, &[&["--json"], arguments].concat()));
    // Each workload once, in the order of all.
    let two = ["--workload", "scan", "--workload", "durable-one", "--workload", "scan"];
    let done = run(&[&two[..], &["--records", "20"]].concat());
    assert_eq!(done.as_array().unwrap().len(), 2);
    assert_eq!(
        (&done[0]["workload"], &done[0]["tailwater"]["records"]),
        (&"durable-one".into(), &200.into())
    );
    assert_eq!((&done[1]["workload"], &done[1]["bare"]["records"]), (&"scan".into(), &200.into()));
    for size in ["8", "1048576"] {
        let done = run(&["--records", "1", "--record-size", size]);
        assert_eq!(done.as_array().unwrap().len(), WORKLOADS.len(), "{size}");
    }
    let start = Instant::now();
    let done = run(&["--workload", "durable-one", "--time", "300ms"]);
    assert!(start.elapsed() >= Duration::from_millis(2 * 300));
    assert_eq!(done[0]["rounds"], 10);
    assert!(left_in(data.root.path()).is_empty());
}

#[test]
fn wrong_arguments_are_usage() {
    let data = Data::on_disk();
    for (part, arguments) in [
        ("a similar value exists: 'durable-one'", ["--workload", "durable-on"]),
        ("possible values: append-buffered, ", ["--workload", "x"]),
        ("from 8 to 1048576", ["--record-size", "7"]),
        ("from 8 to 1048576", ["--record-size", "-1"]),
        ("a whole number from 1", ["--records", "0"]),
        ("a whole number from 1", ["--records", "-5"]),
        ("from 1 to 256", ["--threads", "0"]),
        ("from 1 to 256", ["--threads", "257"]),
        ("a duration has a unit", ["--time", "2"]),
        ("longer than 0", ["--time", "0"]),
    ] {
        data.fails(2, &[part], &["bench", arguments[0], arguments[1]]);
    }
    data.fails(2, &["cannot be used with"], &["bench", "--quick", "--records", "5"]);
    data.fails(2, &["cannot be used with"], &["bench", "--time", "1s", "--records", "5"]);
    assert!(left_in(data.root.path()).is_empty());
}

#[test]
fn a_directory_that_will_not_do_is_told_before_anything_is_done() {
    let data = Data::on_disk();
    let root = data.root.path().to_str().unwrap();
    let missing = format!("{root}/missing");
    data.fails(1, &["there is no directory", "missing: create it"], &["bench", &missing]);
    let file = format!("{root}/file");
    fs::write(&file, "x").unwrap();
    data.fails(1, &["file is no directory: give one"], &["bench", &file]);
    let parts = ["a run takes up to ", " of disk, and ", " are free in ", "--records 1000"];
    data.fails(1, &parts, &["bench", "--records", "99999999999999"]);
    data.ok(&["topic", "create", "orders"]);
    let topics = data.path();
    data.fails(2, &["holds topics, which are left alone"], &["bench", topics.to_str().unwrap()]);
    assert_eq!(left_in(data.root.path()).len(), 2);
}

#[test]
fn a_directory_that_cannot_be_written_to_is_told() {
    let data = Data::on_disk();
    let locked = data.root.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
    let directory = locked.to_str().unwrap();
    let mut run = data.plain_command(&["bench", directory, "--quick"]);
    if fs::create_dir(locked.join("probe")).is_ok() {
        // Run by root, who may do everything unless the right to is given up.
        let limits = "--bounding-set=-dac_override,-dac_read_search";
        let mut command = Command::new("setpriv");
        command.args([limits, "--inh-caps=-dac_override,-dac_read_search"]);
        command.arg(run.get_program()).args(run.get_args());
        fs::remove_dir(locked.join("probe")).unwrap();
        let mut tried = Command::new("setpriv");
        tried.args([limits, "--inh-caps=-dac_override,-dac_read_search", "mkdir"]).arg(locked.join("probe"));
        if why_not(tried.output()).is_none_or(|why| !why.contains("denied")) {
            skipped("a_directory_that_cannot_be_written_to_is_told", "setpriv cannot give the rights up");
            return;
        }
        run = command;
    }
    let output = run.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("error: cannot create ") && stderr.contains("Permission denied"), "{stderr}");
}

#[test]
fn an_error_in_the_middle_shows_what_was_measured_and_leaves_nothing() {
    // Enough descriptors for a log that is written to, and too few for the bare loop's file beside it.
    let limit = "ulimit -n 9";
    if let Some(why) = why_not(limited(limit, &Command::new("true")).output()) {
        skipped("an_error_in_the_middle_shows_what_was_measured_and_leaves_nothing", &why);
        return;
    }
    let data = Data::on_disk();
    let workloads = ["--workload", "scan", "--workload", "durable-one"];
    let command = data.plain_command(&[&["bench", "--quick"], &workloads[..]].concat());
    let output = limited(limit, &command).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{stdout}{stderr}");
    assert!(stderr.contains("error: scan: "), "{stderr}");
    assert!(stderr.ends_with("Too many open files (os error 24)\n"), "{stderr}");
    assert!(stdout.contains("\ndurable-one ") && stdout.contains("\nA sync takes "), "{stdout}");
    assert!(left_in(data.root.path()).is_empty());
}

#[test]
fn a_file_that_may_not_grow_is_told_and_leaves_nothing() {
    let data = Data::on_disk();
    for (limit, workload) in [("ulimit -f 100", "durable-threads"), ("ulimit -f 100", "scan")] {
        if let Some(why) = why_not(limited(limit, &Command::new("true")).output()) {
            skipped("a_file_that_may_not_grow_is_told_and_leaves_nothing", &why);
            return;
        }
        let command = data.plain_command(&["bench", "--quick", "--workload", workload]);
        let output = limited(limit, &command).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{stderr}");
        let wanted = format!("error: {workload}: the bare loop failed: File too large (os error 27)\n");
        assert!(stderr.ends_with(&wanted), "{stderr}");
    }
    assert!(left_in(data.root.path()).is_empty());
}

#[test]
fn a_closed_standard_output_is_no_failure() {
    let data = Data::on_disk();
    for arguments in [&["bench", "--quick", "--workload", "scan"][..], &["bench", "--quick", "--json"]] {
        let mut child = data.start(arguments);
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(is_quiet(&String::from_utf8_lossy(&output.stderr)), "{output:?}");
    }
    assert!(left_in(data.root.path()).is_empty());
}

fn start(data: &Data) -> Child {
    let mut command = data.plain_command(&["bench", "--time", "60s"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_signal_ends_it_and_leaves_nothing() {
    for (name, number) in [("INT", 2), ("TERM", 15)] {
        for delay_ms in [0, 150, 700] {
            let data = Data::on_disk();
            let child = start(&data);
            let give_up = Instant::now() + Duration::from_secs(20);
            while left_in(data.root.path()).is_empty() {
                assert!(Instant::now() < give_up, "it makes no directory");
                std::thread::sleep(Duration::from_millis(2));
            }
            std::thread::sleep(Duration::from_millis(delay_ms));
            signal(&child, name);
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.signal(), Some(number), "{output:?}");
            assert!(output.stdout.is_empty(), "{output:?}");
            assert!(is_quiet(&String::from_utf8_lossy(&output.stderr)), "{output:?}");
            assert_eq!(left_in(data.root.path()), [""; 0], "{name} after {delay_ms} ms");
        }
    }
}
