//! `backup`: also beside a process that writes; `verify` tells whether one is as it was made.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use common::Data;

/// Runs it on a backup: the exit code and what was printed.
fn run_on(backup: &str, arguments: &[&str]) -> (i32, String, String) {
    let mut command = assert_cmd::Command::new(assert_cmd::cargo::cargo_bin!("tailwater"));
    let output =
        command.env_remove("TAILWATER_DATA").arg("--data").arg(backup).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn ok_on(backup: &str, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run_on(backup, arguments);
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    stdout
}

fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("{n} {}\n", "x".repeat(200))).collect()
}

#[test]
fn a_backup_is_verified_and_restored_by_using_it() {
    let data = Data::new();
    data.ok(&["topic", "create", "orders", "--set", "segment_bytes=8192"]);
    data.ok_with(&["produce", "orders"], lines(0..200).as_bytes());
    data.ok(&["consume", "orders", "--group", "billing", "--max", "50"]);
    let [first, second] = ["first", "second"].map(|name| data.root.path().join(name).display().to_string());
    let made = data.ok(&["backup", &first]);
    assert!(made.contains(": 2 partitions in ") && made.contains(" bytes copied"), "{made}");
    data.ok_with(&["produce", "orders"], lines(200..300).as_bytes());
    let made: serde_json::Value =
        serde_json::from_str(&data.ok(&["backup", &second, "--incremental-from", &first, "--json"])).unwrap();
    assert!(made["reused_files"].as_u64().unwrap() > 0, "{made}");
    for backup in [&first, &second] {
        ok_on(backup, &["verify"]);
    }
    assert_eq!(ok_on(&second, &["consume", "orders"]), lines(0..300));
    assert_eq!(ok_on(&first, &["consume", "orders", "--group", "billing"]), lines(50..200));
    assert_eq!(data.ok(&["consume", "orders", "--group", "billing"]), lines(50..300));

    let refused = data.run(&["backup", &second]);
    assert!(refused.code == 1 && refused.stderr.contains("exists already"), "{refused:?}");
    let within = data.path().join("backup").display().to_string();
    let refused = data.run(&["backup", &within]);
    assert!(refused.code == 1 && refused.stderr.contains("lies in the data directory"), "{refused:?}");
    let refused = data.run(&["backup", &within, "--incremental-from", "/nowhere"]);
    assert!(refused.code == 1 && refused.stderr.contains("is no backup"), "{refused:?}");
}

#[test]
fn a_file_that_was_changed_or_lost_is_told() {
    let data = Data::new();
    data.ok_with(&["produce", "orders"], lines(0..20).as_bytes());
    let backup = data.root.path().join("backup");
    let path = backup.display().to_string();
    data.ok(&["backup", &path, "--copy"]);
    ok_on(&path, &["verify"]);
    // A byte of the older slot: without it all is read as before.
    let checkpoint = backup.join("orders-0/checkpoint");
    let mut bytes = std::fs::read(&checkpoint).unwrap();
    bytes[300] ^= 1;
    std::fs::write(&checkpoint, bytes).unwrap();
    let (code, _, stderr) = run_on(&path, &["verify"]);
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("orders-0/checkpoint is not as it was when the backup was made"), "{stderr}");
    std::fs::write(backup.join("backup.manifest"), b"x").unwrap();
    let (code, _, stderr) = run_on(&path, &["verify"]);
    assert!(code == 3 && stderr.contains("backup.manifest cannot be used"), "{stderr}");
}

#[test]
fn a_backup_is_made_beside_a_process_that_writes() {
    let data = Data::new();
    data.ok(&["topic", "create", "orders", "--set", "segment_bytes=8192"]);
    let mut writer = std::process::Command::new(assert_cmd::cargo::cargo_bin!("tailwater"))
        .arg("--data")
        .arg(data.path())
        .args(["produce", "orders", "--acks"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = writer.stdin.take().unwrap();
    input.write_all(lines(0..300).as_bytes()).unwrap();
    input.flush().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let backup = data.root.path().join("backup").display().to_string();
    data.ok(&["backup", &backup]);
    drop(input);
    assert!(writer.wait().unwrap().success());
    ok_on(&backup, &["verify"]);
    assert_eq!(run_on(&backup, &["consume", "orders"]).1, lines(0..300));
}
