//! Kills the command as soon as a system call is done, each one of those with which it changes its directory, and again
//! in the recovery that follows.
//!
//! Where `kill_produce` kills at any time, this one leaves no step out: between any two changes there is a death.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::path::Path;

use common::Data;
use common::system::{
    Injection, in_parallel, note, ordinals_below, parse_trace, sampled, skipped, traced, why_not_traced,
};
use common::waves::{
    Produced, check_goes_on, check_kept, empty_template, fill, fill_and_die, lines, produce_in_waves,
};

const CALLS: [&str; 11] = [
    "openat",
    "flock",
    "fallocate",
    "ftruncate",
    "pwrite64",
    "fdatasync",
    "fsync",
    "rename",
    "unlink",
    "mkdir",
    "rmdir",
];
const SIGKILL: i32 = 9;

/// Whether there is `strace`; if not, says that `test` is skipped.
fn is_traced(test: &str) -> bool {
    match why_not_traced() {
        Some(why) => {
            skipped(test, &why);
            false
        }
        None => true,
    }
}

/// A run of the command, killed at `injection` if there is one. Standard output is that of the command.
fn run(
    data: &Data,
    arguments: &[&str],
    lines: &[String],
    injection: Option<&Injection>,
) -> (Produced, String) {
    let trace = data.root.path().join("trace");
    let mut command = traced(&data.plain_command(arguments), &CALLS.join(","), injection, &trace);
    if arguments[0] == "produce" {
        return (produce_in_waves(command, lines), String::new());
    }
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let ended = Produced { sent: 0, offsets: Vec::new(), code: output.status.code(), signal, stderr };
    (ended, String::from_utf8(output.stdout).unwrap())
}

/// Every place to kill a run on a copy of `template` at, of each call at most `most`.
fn places(template: &Path, arguments: &[&str], lines: &[String], most: usize) -> Vec<Injection> {
    let data = Data::copy_of(template);
    let (ended, _) = run(&data, arguments, lines, None);
    assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    let calls = parse_trace(&data.root.path().join("trace"));
    let places = CALLS.into_iter().flat_map(|call| {
        let ordinals = sampled(&ordinals_below(&calls, call, &data.path()), most);
        ordinals.into_iter().map(move |ordinal| Injection {
            call,
            what: "signal=KILL",
            ordinal,
            is_for_ever: false,
        })
    });
    places.collect()
}

/// Kills a run at each of its places and has `check` look at what is left: at the directory, how the run ended, and what
/// it had printed.
fn sweep(
    template: &Path,
    arguments: &[&str],
    lines: &[String],
    most: usize,
    check: impl Fn(&Data, &Produced, &str) -> Result<(), String> + Sync,
) {
    let places = places(template, arguments, lines, most);
    let results = in_parallel(&places, |_, place| {
        let data = Data::copy_of(template);
        let (ended, printed) = run(&data, arguments, lines, Some(place));
        let is_killed = ended.signal == Some(SIGKILL);
        if !is_killed && ended.code != Some(0) {
            return Err(format!("{place}: neither killed nor done: {ended:?}"));
        }
        let checked = check(&data, &ended, &printed).map(|()| is_killed);
        checked
            .map_err(|why| format!("{place}: {why}; {} acknowledged, {}", ended.offsets.len(), ended.stderr))
    });
    let failed: String =
        results.iter().filter_map(|result| Some(format!("{}\n", result.as_ref().err()?))).collect();
    assert!(failed.is_empty(), "{arguments:?}:\n{failed}");
    let killed = results.iter().filter(|result| **result == Ok(true)).count();
    note(&format!("{}: {} runs, {killed} killed at a system call", arguments.join(" "), results.len()));
    // Which thread makes a call differs from run to run, so some places are not reached.
    assert!(killed * 2 > results.len() && killed > 10, "{killed} of {} were killed", results.len());
}

#[test]
fn a_producer_that_dies_at_a_system_call_has_kept_what_it_acknowledged() {
    if !is_traced("a_producer_that_dies_at_a_system_call_has_kept_what_it_acknowledged") {
        return;
    }
    let root = Data::on_disk();
    let template = empty_template(root.root.path());
    let after = lines("after", 120);
    sweep(&template, &["produce", "orders", "--acks"], &after, 40, |data, ended, _| {
        check_kept(data, &[], &after, ended).and_then(|count| check_goes_on(data, count))
    });
}

#[test]
fn a_recovery_that_dies_at_a_system_call_is_repeated_until_it_is_done() {
    if !is_traced("a_recovery_that_dies_at_a_system_call_is_repeated_until_it_is_done") {
        return;
    }
    let root = Data::on_disk();
    let template = empty_template(root.root.path());
    let before = lines("before", 100);
    fill_and_die(&template, &before);
    let after = lines("after", 6);
    let arguments = ["produce", "orders", "--acks"];
    // Two more recoveries die, each one call of some kind further on.
    let more = places(&template, &arguments, &after, 40);
    let next = std::sync::atomic::AtomicUsize::new(0);
    sweep(&template, &arguments, &after, 40, |data, ended, _| {
        let count = check_kept_unopened(data, &before, &after, ended)?;
        let mut there: Vec<_> = before.iter().chain(&after).take(count).cloned().collect();
        for _ in 0..2 {
            let place = &more[next.fetch_add(7, std::sync::atomic::Ordering::Relaxed) % more.len()];
            let (ended, _) = run(data, &arguments, &after, Some(place));
            let count = check_kept_unopened(data, &there, &after, &ended)?;
            let new = count - there.len();
            there.extend(after.iter().take(new).cloned());
        }
        let closed =
            Produced { sent: 0, offsets: Vec::new(), code: None, signal: None, stderr: String::new() };
        check_kept(data, &there, &[], &closed).and_then(|count| check_goes_on(data, count))
    });
}

/// As [`check_kept`], on a copy: the directory itself stays as the dead process left it.
fn check_kept_unopened(
    data: &Data,
    before: &[String],
    lines: &[String],
    ended: &Produced,
) -> Result<usize, String> {
    check_kept(&Data::copy_of(&data.path()), before, lines, ended)
}

/// The records of a topic, one a line, or what went wrong.
fn consume(data: &Data) -> Result<Vec<String>, String> {
    let consumed = data.run(&["consume", "orders"]);
    match consumed.code {
        0 => Ok(consumed.stdout.lines().map(str::to_owned).collect()),
        _ => Err(format!("{consumed:?}")),
    }
}

fn expect_sound(data: &Data) -> Result<(), String> {
    let verified = data.run(&["verify"]);
    if verified.code == 0 { Ok(()) } else { Err(format!("{verified:?}")) }
}

/// The directory of a test with a hundred lines in it, closed in order, and the lines.
fn filled() -> (Data, std::path::PathBuf, Vec<String>) {
    let root = Data::on_disk();
    let template = empty_template(root.root.path());
    let before = lines("before", 100);
    fill(&template, &before);
    (root, template, before)
}

#[test]
fn a_deletion_or_truncation_that_dies_is_done_or_was_never_begun() {
    if !is_traced("a_deletion_or_truncation_that_dies_is_done_or_was_never_begun") {
        return;
    }
    let (_root, template, before) = filled();
    let cases = [
        (["topic", "delete-records", "orders:0", "60"], &before[60..]),
        (["topic", "truncate", "orders:0", "60"], &before[..60]),
    ];
    for (arguments, rest) in cases {
        sweep(&template, &arguments, &[], 40, |data, ended, _| {
            expect_sound(data)?;
            let kept = consume(data)?;
            if kept != rest && (kept != before || ended.signal.is_none()) {
                return Err(format!("{} records are left: {:?}...", kept.len(), kept.first()));
            }
            let again = data.run(&arguments);
            if again.code != 0 || consume(data)? != rest {
                return Err(format!("again: {again:?}"));
            }
            expect_sound(data)
        });
    }
}

#[test]
fn a_topic_whose_creation_or_deletion_dies_is_there_whole_or_not_at_all() {
    if !is_traced("a_topic_whose_creation_or_deletion_dies_is_there_whole_or_not_at_all") {
        return;
    }
    let (_root, template, before) = filled();
    sweep(&template, &["topic", "delete", "orders"], &[], 40, |data, ended, _| {
        expect_sound(data)?;
        let is_there = data.ok(&["topic", "list"]).contains("orders");
        if is_there && (consume(data)? != before || ended.signal.is_none()) {
            return Err("the topic is there, its records are not".into());
        }
        // Whoever opens it finishes what was begun.
        let again = data.run(&["topic", "delete", "orders"]);
        let is_unknown = again.code == 1 && again.stderr.contains("there is no topic orders");
        if again.code != 0 && !is_unknown {
            return Err(format!("again: {again:?}"));
        }
        let mut left: Vec<_> =
            std::fs::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.retain(|name| !["LOCK", "catalog", "__groups-0"].contains(&name.to_str().unwrap()));
        if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:?}")) }
    });
    sweep(&template, &["topic", "create", "mails", "--partitions", "3"], &[], 40, |data, ended, _| {
        expect_sound(data)?;
        let is_there = data.ok(&["topic", "list"]).contains("mails");
        if !is_there && ended.signal.is_none() {
            return Err("it was created, and is not there".into());
        }
        if consume(data)? != before {
            return Err("another topic has changed".into());
        }
        let again = data.run(&["topic", "create", "mails", "--partitions", "3"]);
        if again.code != i32::from(is_there) || (is_there && !again.stderr.contains("exists already")) {
            return Err(format!("again: {again:?}"));
        }
        for partition in ["0", "1", "2"] {
            let sent = data.run_with(&["produce", "mails", "--acks", "--partition", partition], b"x\n");
            if sent.stdout != format!("{partition}\t0\n") {
                return Err(format!("{sent:?}"));
            }
        }
        expect_sound(data)
    });
}

#[test]
fn a_group_whose_consumer_dies_goes_on_where_records_were_printed_or_before() {
    if !is_traced("a_group_whose_consumer_dies_goes_on_where_records_were_printed_or_before") {
        return;
    }
    let (_root, template, before) = filled();
    sweep(
        &template,
        &["consume", "orders", "--group", "billing", "--max", "70"],
        &[],
        40,
        |data, ended, printed| {
            expect_sound(data)?;
            // The last line may be cut.
            let printed = printed.matches('\n').count();
            let rest = data.run(&["consume", "orders", "--group", "billing"]);
            if rest.code != 0 {
                return Err(format!("{rest:?}"));
            }
            let rest: Vec<_> = rest.stdout.lines().collect();
            let position = before.len() - rest.len();
            if rest != before[position..] {
                return Err("other records were printed than there are".into());
            }
            if position > printed || (ended.signal.is_none() && position != 70) {
                return Err(format!("it goes on at {position}, and {printed} were printed"));
            }
            Ok(())
        },
    );
}
