//! Wrong arguments and directories that cannot be used: each says what is wrong and has its exit code.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{Data, damage, ran};

#[test]
fn wrong_usage_is_two() {
    let data = Data::new();
    data.ok(&["topic", "create", "orders"]);
    data.fails(2, &["unrecognized subcommand 'frobnicate'"], &["frobnicate"]);
    data.fails(2, &["\"a/b\" is no topic name", "letters, digits"], &["topic", "create", "a/b"]);
    data.fails(2, &["it must be written as KEY=VALUE"], &["topic", "create", "x", "--set", "segment_bytes"]);
    data.fails(
        2,
        &["there is no topic setting \"segment\""],
        &["topic", "create", "x", "--set", "segment=1"],
    );
    let parts = ["segment_bytes cannot be \"1GiB\"", "whole number of bytes"];
    data.fails(2, &parts, &["topic", "create", "x", "--set", "segment_bytes=1GiB"]);
    let parts = ["segment_bytes is 17; it must be from 4096 to 2147483648 bytes"];
    data.fails(2, &parts, &["topic", "create", "x", "--set", "segment_bytes=17"]);
    data.fails(2, &["from 1 to 100000"], &["topic", "create", "x", "--partitions", "0"]);
    data.fails(2, &["a partition is written as TOPIC:NUMBER"], &["topic", "truncate", "orders", "1"]);
    data.fails(2, &["an offset is a whole number"], &["topic", "truncate", "orders:0", "-1"]);
    data.fails(2, &["a duration has a unit"], &["--lock-timeout", "10", "topic", "list"]);
    data.fails(2, &["a time is 2026-11-22T18:30:00Z"], &["offsets", "orders", "--at", "yesterday"]);
    data.fails(2, &["it cannot be empty"], &["produce", "orders", "--delimiter", ""]);
    data.fails(2, &["there is no escape `\\q`"], &["produce", "orders", "--delimiter", "\\q"]);
    data.fails(2, &["cannot be used with"], &["produce", "orders", "-0", "--delimiter", "x"]);
    data.fails(2, &["cannot be used with"], &["produce", "orders", "--json", "--key", "x"]);
    data.fails(2, &["--json excludes"], &["--json", "produce", "orders", "--key", "x"]);
    data.fails(
        2,
        &["possible values: buffered, written, durable"],
        &["produce", "orders", "--durability", "x"],
    );
    // None of this created anything.
    assert_eq!(data.ok(&["topic", "list"]).lines().count(), 2);
}

#[test]
fn values_may_begin_with_a_hyphen() {
    let data = Data::new();
    data.ok_with(&["produce", "orders", "--key", "-1", "--header", "-h=-2"], b"a\n");
    data.ok_with(&["produce", "orders", "--key-separator", "--", "--null-value", "-1"], b"k---1\nk---\n");
    data.ok_with(&["produce", "orders", "--delimiter", "---"], b"b---c");
    let printed = data.ok(&["consume", "orders", "--format", "-%k %h %S %s,"]);
    assert_eq!(printed, "--1 -h=-2 1 a,-k  -1 ,-k  1 -,-  1 b,-  1 c,");
    for (part, command) in [
        ("a partition is a whole number from 0", &["produce", "orders", "--partition", "-1"][..]),
        ("a partition is a whole number from 0", &["consume", "orders", "--partition", "-1"]),
        ("it must be a whole number from 0", &["consume", "orders", "--max", "-1"]),
        ("it must be a whole number from 0", &["topic", "create", "mails", "--partitions", "-1"]),
        ("it must be a whole number from 0", &["topic", "alter", "orders", "--partitions", "4294967296"]),
    ] {
        data.fails_with(2, &[part], command, b"x\n");
    }
    assert_eq!(data.records("orders-0").len(), 5);
}

#[test]
fn nothing_is_created_for_wrong_usage() {
    let data = Data::new();
    let long = "x".repeat(250);
    for (part, command) in [
        ("'/' is not allowed", &["topic", "create", "a/b"][..]),
        ("'\u{fc}' is not allowed", &["topic", "create", "m\u{fc}ller"]),
        ("it is empty", &["topic", "create", ""]),
        ("mean directories", &["topic", "create", ".."]),
        ("are reserved", &["topic", "create", "__groups"]),
        ("it has 250 bytes, and 249 are allowed", &["topic", "create", &long]),
        ("it must be from 1 to 100000", &["topic", "create", "orders", "--partitions", "0"]),
        ("it must be from 4096", &["topic", "create", "orders", "--set", "segment_bytes=17"]),
        ("'/' is not allowed", &["produce", "a/b"]),
        ("cannot be used with", &["produce", "orders", "--json", "--key", "x"]),
        ("--json excludes", &["--json", "produce", "orders", "--key", "x"]),
    ] {
        data.fails_with(2, &[part], command, b"a\n");
        assert!(!data.path().exists(), "{command:?} made the directory");
    }
    data.fails_with(1, &["cannot read missing"], &["produce", "orders", "--file", "missing"], b"");
    assert!(!data.path().exists());
}

#[test]
fn what_is_not_there_is_named() {
    let data = Data::new();
    for command in
        [&["topic", "list"][..], &["offsets", "orders"], &["info"], &["verify"], &["topic", "delete", "x"]]
    {
        data.fails(1, &["there is no directory ", "check --data"], command);
        assert!(!data.path().exists(), "{command:?} made the directory");
    }
    data.ok(&["topic", "create", "orders"]);
    for command in [
        &["offsets", "mails"][..],
        &["verify", "mails"],
        &["topic", "describe", "mails"],
        &["topic", "alter", "mails", "--partitions", "2"],
        &["topic", "delete", "mails"],
        &["topic", "truncate", "mails:0", "0"],
        &["topic", "delete-records", "mails:0", "0"],
    ] {
        data.fails(1, &["there is no topic mails"], command);
    }
    data.fails(1, &["topic orders exists already"], &["topic", "create", "ORDERS"]);
    data.fails(1, &["cannot open", "missing.log"], &["dump", "missing.log"]);
    let catalog = data.path().join("catalog");
    data.fails(1, &["catalog is no segment file"], &["dump", catalog.to_str().unwrap()]);
    data.fails(1, &["it is not a regular file"], &["dump", data.path().to_str().unwrap()]);
}

#[test]
fn a_misspelt_name_is_followed_by_the_one_that_was_meant() {
    let data = Data::new();
    data.ok_with(&["produce", "orders"], b"a\n");
    data.ok(&["consume", "orders", "--group", "billing"]);
    for command in [
        &["consume", "ordres"][..],
        &["produce", "Order", "--no-create"],
        &["offsets", "oders"],
        &["verify", "ordres"],
        &["topic", "truncate", "ordres:0", "0"],
        &["groups", "create", "shipping", "ordres", "--at", "latest"],
    ] {
        data.fails(1, &["there is no topic ", "did you mean orders?"], command);
    }
    for command in [
        &["groups", "describe", "biling"][..],
        &["groups", "delete", "bliling"],
        &["groups", "reset", "billin", "--topic", "orders", "--to", "latest"],
    ] {
        data.fails(1, &["there is no group ", "did you mean billing?"], command);
    }
    let told = data.fails(1, &["there is no topic mails"], &["consume", "mails"]);
    assert!(!told.contains("did you mean"), "{told}");
}

#[test]
fn tailwaters_own_topics_are_out_of_reach() {
    let data = Data::new();
    data.ok(&["topic", "create", "orders"]);
    data.fails(2, &["reserved"], &["topic", "create", "__groups"]);
    data.fails(2, &["reserved"], &["produce", "__groups"]);
    data.fails(1, &["there is no topic __groups"], &["topic", "delete", "__groups"]);
}

#[test]
fn a_directory_of_other_things_is_left_alone() {
    let data = Data::new();
    fs::create_dir(data.path()).unwrap();
    fs::write(data.path().join("letter.txt"), "dear").unwrap();
    for command in
        [&["topic", "create", "orders"][..], &["topic", "list"], &["verify"], &["produce", "orders"]]
    {
        data.fails(1, &["is not a Tailwater directory", "it holds other files"], command);
    }
    let names: Vec<_> = fs::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["letter.txt"]);
    fs::remove_file(data.path().join("letter.txt")).unwrap();
    data.fails(1, &["is not a Tailwater directory: it is empty"], &["topic", "list"]);
    fs::remove_dir(data.path()).unwrap();
    fs::write(data.path(), "a file").unwrap();
    data.fails(1, &["is not a Tailwater directory: it is a file"], &["topic", "create", "orders"]);
}

#[test]
fn a_foreign_name_in_the_directory_is_a_warning() {
    let data = Data::new();
    data.ok(&["topic", "create", "orders"]);
    fs::write(data.path().join("letter.txt"), "dear").unwrap();
    fs::write(data.path().join("orders-0").join("note"), "to self").unwrap();
    let ran = data.run_with(&["produce", "orders", "--acks"], b"a\n");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "0\t0\n"));
    let mut warnings = ran.stderr.lines();
    let warning = warnings.next().unwrap();
    assert!(
        warning.starts_with("warning: ")
            && warning.ends_with("letter.txt is none of Tailwater's files, and was left alone")
    );
    assert_eq!(
        warnings.next(),
        Some("warning: note in orders-0 is none of Tailwater's files, and was left alone")
    );
    assert!(data.path().join("letter.txt").exists());
}

#[test]
fn a_newer_format_says_so_and_nothing_is_touched() {
    let data = Data::new();
    data.ok_with(&["produce", "orders"], b"a\n");
    let segment = data.segment("orders-0");
    let mut bytes = fs::read(&segment).unwrap();
    // The version of both header copies, and their checksums (`docs/format.md`, section "Segment header").
    for at in [0, 512] {
        bytes[at + 8] = 2;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[at..at + 36]);
        hasher.update(&bytes[at + 40..at + 64]);
        bytes[at + 36..at + 40].copy_from_slice(&hasher.finalize().to_le_bytes());
    }
    fs::write(&segment, &bytes).unwrap();
    let parts = ["needs format version 2", "reads format versions up to 1", "use a newer tailwater"];
    data.fails(1, &parts, &["verify"]);
    data.fails(1, &parts, &["offsets", "orders"]);
    data.fails(1, &parts, &["dump", segment.to_str().unwrap()]);
    data.fails_with(1, &parts, &["produce", "orders"], b"b\n");
    assert_eq!(fs::read(&segment).unwrap(), bytes);

    // The catalog's version, and its checksum of all other bytes.
    let catalog = data.path().join("catalog");
    let mut bytes = fs::read(&catalog).unwrap();
    bytes[8] = 2;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..]);
    bytes[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
    fs::write(&catalog, &bytes).unwrap();
    for command in [&["topic", "list"][..], &["topic", "create", "mails"], &["produce", "orders"], &["info"]]
    {
        data.fails_with(1, &parts, command, b"b\n");
    }
    assert_eq!(fs::read(&catalog).unwrap(), bytes);
}

#[test]
fn a_damaged_or_missing_catalog_is_corruption() {
    let data = Data::new();
    data.ok_with(&["produce", "orders"], b"a\n");
    damage(&data.path().join("catalog"), 30);
    for command in [&["topic", "list"][..], &["verify"], &["produce", "orders"], &["topic", "create", "x"]] {
        data.fails(3, &["catalog", "is damaged", "checksum"], command);
    }
    fs::remove_file(data.path().join("catalog")).unwrap();
    for command in [&["topic", "list"][..], &["verify"], &["produce", "orders"], &["topic", "create", "x"]] {
        data.fails(3, &["holds partitions and no catalog file"], command);
    }
}

#[test]
fn a_directory_that_cannot_be_written_to_can_be_read() {
    let data = Data::new();
    data.ok_with(&["produce", "orders"], b"a\n");
    let Some(unprivileged) = unprivileged(data.path().parent().unwrap()) else {
        println!("skipped: run by root, and setpriv cannot give the rights up");
        return;
    };
    let run = |arguments: &[&str]| {
        let program = assert_cmd::cargo::cargo_bin!("tailwater");
        let (first, rest) = match unprivileged.split_first() {
            Some((first, rest)) => (first.as_str(), rest),
            None => (program.to_str().unwrap(), &[][..]),
        };
        let mut command = assert_cmd::Command::new(first);
        if !unprivileged.is_empty() {
            command.args(rest).arg(program);
        }
        ran(command.env_remove("TAILWATER_DATA").arg("--data").arg(data.path()).args(arguments))
    };
    let set_mode = |mode: u32| {
        for entry in fs::read_dir(data.path()).unwrap() {
            let path = entry.unwrap().path();
            let mode = if path.is_dir() { mode } else { mode & 0o666 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(data.path(), fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(0o555);
    for command in [&["topic", "create", "mails"][..], &["produce", "orders"], &["topic", "delete", "orders"]]
    {
        let ran = run(command);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(
            ran.stderr.contains("cannot be written to") && ran.stderr.contains("make it writable"),
            "{ran:?}"
        );
    }
    for command in [&["topic", "list"][..], &["offsets", "orders"], &["info"], &["verify"]] {
        let ran = run(command);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{command:?}");
    }
    set_mode(0o755);
}

#[test]
fn an_offset_outside_on_either_side_is_named_with_what_there_is() {
    let data = Data::new();
    data.ok_with(&["produce", "orders"], b"0\n1\n2\n3\n");
    data.ok(&["topic", "delete-records", "orders:0", "2"]);
    data.ok(&["groups", "create", "billing", "orders", "--at", "earliest"]);
    for offset in ["1", "5"] {
        let part = format!("offset {offset} is outside [2, 4] in orders-0");
        for command in [
            &["consume", "orders", "--from", offset][..],
            &["consume", "orders", "--group", "shipping", "--from", offset],
            &["groups", "create", "shipping", "orders", "--at", offset],
            &["groups", "reset", "billing", "--topic", "orders", "--to", offset],
            &["topic", "truncate", "orders:0", offset],
        ] {
            data.fails(1, &[&part], command);
        }
    }
    data.fails(1, &["offset 5 is outside [2, 4]"], &["topic", "delete-records", "orders:0", "5"]);
    data.fails(2, &["offsets are below"], &["consume", "orders", "--from", "9223372036854775808"]);
    // None of this moved anything, or began a group.
    assert_eq!(data.ok(&["groups", "list", "--json"]).matches("\"group\"").count(), 1);
    assert_eq!(data.ok(&["consume", "orders", "--group", "billing"]), "2\n3\n");
}

#[test]
fn a_full_disk_ends_it_with_what_was_acknowledged_kept() {
    let data = Data::new();
    data.ok(&["topic", "create", "orders"]);
    let lines: String = (0..20_000).map(|n| format!("{n} {}\n", "x".repeat(90))).collect();
    // No file may be larger than 1,024 blocks of 512 or 1,024 bytes, which is to the writer what a full disk is.
    let limited = |arguments: &[&str], input: &[u8]| {
        let mut command = assert_cmd::Command::new("sh");
        command.args(["-c", "ulimit -f 1024 && exec \"$@\"", "sh"]);
        command.arg(assert_cmd::cargo::cargo_bin!("tailwater")).arg("--data").arg(data.path());
        ran(command.env_remove("TAILWATER_DATA").args(arguments).write_stdin(input))
    };
    let full = limited(&["produce", "orders", "--acks"], lines.as_bytes());
    assert_eq!(full.code, 1, "{}", full.stderr);
    let acknowledged = full.stdout.lines().count();
    assert!(acknowledged > 100, "{acknowledged} records");
    assert!(
        full.stderr.starts_with("error: ") && full.stderr.contains("no space left for "),
        "{}",
        full.stderr
    );
    assert!(full.stderr.contains("make room and try again"), "{}", full.stderr);
    assert!(full.stderr.ends_with(&format!("{acknowledged} records were acknowledged\n")), "{}", full.stderr);
    assert_eq!(data.ok(&["verify", "orders", "--json"]).matches("\"damage\": []").count(), 1);
    let kept = data.ok(&["consume", "orders"]);
    assert_eq!(kept.lines().count(), acknowledged);
    assert!(lines.starts_with(&kept));
    // With room it goes on where it was.
    let next = format!("0\t{acknowledged}\n");
    assert_eq!(data.ok_with(&["produce", "orders", "--acks"], b"more\n"), next);
}

#[test]
fn a_truncated_or_foreign_file_is_corruption_and_is_not_touched() {
    let data = Data::new();
    data.ok_with(&["produce", "orders"], b"a\n");
    let segment = data.segment("orders-0");
    let sound = fs::read(&segment).unwrap();
    for bytes in [&sound[..1030], &sound[..700], &sound[..100], b"", b"dear Sirs"] {
        fs::write(&segment, bytes).unwrap();
        for command in [&["verify"][..], &["consume", "orders"], &["produce", "orders"]] {
            data.fails_with(3, &["orders-0/00000000000000000000.log"], command, b"b\n");
            assert_eq!(fs::read(&segment).unwrap(), bytes, "{command:?} with {} bytes", bytes.len());
        }
    }
    fs::write(&segment, &sound).unwrap();
    assert_eq!(data.ok(&["consume", "orders"]), "a\n");
}

#[test]
fn what_is_not_text_is_refused_where_text_is_needed() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let data = Data::new();
    let bytes = OsStr::from_bytes(b"caf\xe9");
    for arguments in [&["produce"][..], &["produce", "orders", "--key"], &["topic", "create"], &["consume"]] {
        let ran = ran(data.command(arguments).arg(bytes));
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.starts_with("error: invalid UTF-8"), "{ran:?}");
        assert!(!data.path().exists());
    }
    // A directory has any name.
    let run = |arguments: &[&str]| {
        let mut command = assert_cmd::Command::new(assert_cmd::cargo::cargo_bin!("tailwater"));
        ran(command.env("TAILWATER_DATA", data.root.path().join(bytes)).args(arguments))
    };
    assert_eq!(run(&["topic", "create", "orders"]).code, 0);
    assert!(run(&["info", "--json"]).stdout.contains("caf\u{fffd}"));
}

#[test]
fn no_input_is_no_record_and_no_failure() {
    let data = Data::new();
    for more in
        [&["--acks"][..], &["--json"], &["-0"], &["--key-separator", ":"], &["--durability", "buffered"]]
    {
        let arguments = [&["produce", "orders"][..], more].concat();
        assert_eq!(data.ok_with(&arguments, b""), "");
    }
    assert_eq!(data.ok(&["offsets", "orders", "--json"]).matches("\"log_end_offset\": 0").count(), 1);
    assert_eq!(data.ok(&["consume", "orders"]), "");
}

/// What to put before a command so that it respects permissions: nothing, unless the tests are run by root. `None` if
/// that cannot be had.
fn unprivileged(directory: &Path) -> Option<Vec<String>> {
    let probe = directory.join("probe");
    fs::write(&probe, "x").unwrap();
    fs::set_permissions(&probe, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&probe).is_err() {
        return Some(Vec::new());
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    let words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(str::to_owned).to_vec();
    let program = assert_cmd::cargo::cargo_bin!("tailwater");
    let tried =
        std::process::Command::new(&words[0]).args(&words[1..]).arg(program).arg("--version").output();
    tried.is_ok_and(|output| output.status.success()).then_some(words)
}
