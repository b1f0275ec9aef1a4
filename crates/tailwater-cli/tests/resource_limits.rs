//! Too few descriptors, too little memory, files that may not grow: it works, or says what it lacks, and harms nothing.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::process::Command;

use common::system::{in_parallel, limited, note, skipped, why_not};
use common::waves::{check_goes_on, check_kept, empty_template, fill, fill_and_die, lines, produce_in_waves};
use common::{Data, Ran};

/// What a limit did to a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Works,
    Told,
    /// It does not even start: the dynamic loader, or the language's runtime, gives up.
    NotStarted,
}

fn run(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Whether it ended with a message of its own, and one, maybe a warning before it, has what the operating system said.
fn is_told(stderr: &str, said: &str) -> bool {
    let mut messages =
        stderr.lines().filter(|line| line.starts_with("error: ") || line.starts_with("warning: "));
    let is_last_an_error = stderr.lines().last().is_some_and(|line| line.starts_with("error: "));
    is_last_an_error && messages.any(|line| line.contains(said)) && !stderr.contains("panicked")
}

/// The outcomes from the tightest limit on: some are told, and with the loosest ones it works.
fn expect_threshold(outcomes: &[Outcome], name: &str) {
    let count = |wanted| outcomes.iter().filter(|outcome| **outcome == wanted).count();
    let [not_started, told, works] = [Outcome::NotStarted, Outcome::Told, Outcome::Works].map(count);
    note(&format!(
        "{name}: {not_started} limits it does not start with, {told} it tells of, {works} it works with"
    ));
    assert!(told > 0 && outcomes.ends_with(&[Outcome::Works; 8]), "{name}: {outcomes:?}");
}

/// Whether the limit can be set; if not, says that `test` is skipped.
fn can_limit(test: &str, limit: &str) -> bool {
    match why_not(limited(limit, &Command::new("true")).output()) {
        Some(why) => {
            skipped(test, &format!("{limit}: {why}"));
            false
        }
        None => true,
    }
}

#[test]
fn with_too_few_descriptors_it_says_so_and_harms_nothing() {
    if !can_limit("with_too_few_descriptors_it_says_so_and_harms_nothing", "ulimit -n 30") {
        return;
    }
    let root = Data::on_disk();
    let template = empty_template(root.root.path());
    let before = lines("before", 60);
    fill(&template, &before);
    let dead = root.root.path().join("dead");
    common::system::copy_tree(&template, &dead);
    let more = lines("more", 30);
    fill_and_die(&dead, &more);
    let limits: Vec<u32> = (3..=40).collect();
    for (name, template, before) in
        [("producing", &template, before.clone()), ("recovering", &dead, [before, more].concat())]
    {
        let after = lines("after", 90);
        let outcomes = in_parallel(&limits, |_, limit| {
            let data = Data::copy_of(template);
            let command = data.plain_command(&["produce", "orders", "--acks"]);
            let produced = produce_in_waves(limited(&format!("ulimit -n {limit}"), &command), &after);
            let count = check_kept(&data, &before, &after, &produced);
            count
                .and_then(|count| check_goes_on(&data, count))
                .unwrap_or_else(|why| panic!("{limit}: {why}"));
            match produced.code {
                Some(0) if produced.offsets.len() == after.len() => Outcome::Works,
                Some(1) if is_told(&produced.stderr, "Too many open files (os error 24)") => Outcome::Told,
                _ if !produced.stderr.contains("error: ") || produced.code == Some(127) => {
                    Outcome::NotStarted
                }
                _ => panic!("ulimit -n {limit}: {produced:?}"),
            }
        });
        expect_threshold(&outcomes, &format!("{name} with 3 to 40 descriptors"));
    }
    // Whoever reads or looks is no other.
    for arguments in
        [&["consume", "orders"][..], &["verify"], &["info"], &["consume", "orders", "--group", "billing"]]
    {
        let outcomes = in_parallel(&limits, |_, limit| {
            let data = Data::copy_of(&template);
            let ran = run(limited(&format!("ulimit -n {limit}"), &data.plain_command(arguments)));
            assert_eq!(data.ok(&["consume", "orders"]).lines().count(), 60, "{arguments:?} with {limit}");
            data.ok(&["verify"]);
            match ran.code {
                0 => Outcome::Works,
                1 if is_told(&ran.stderr, "Too many open files (os error 24)") => Outcome::Told,
                _ if !ran.stderr.contains("error: ") || ran.code == 127 => Outcome::NotStarted,
                _ => panic!("ulimit -n {limit}: {ran:?}"),
            }
        });
        expect_threshold(&outcomes, &format!("{arguments:?} with 3 to 40 descriptors"));
    }
}

#[test]
fn with_too_little_memory_it_says_so_or_dies_and_harms_nothing() {
    if !can_limit("with_too_little_memory_it_says_so_or_dies_and_harms_nothing", "ulimit -v 100000") {
        return;
    }
    let root = Data::on_disk();
    let template = empty_template(root.root.path());
    let before = lines("before", 60);
    fill(&template, &before);
    let after = lines("after", 90);
    // From too little for the loader, over too little for threads, to too little for a map of a segment, without which
    // segments are read piece by piece.
    let limits: Vec<u32> = (2..=40).map(|mb| mb * 1000).chain([60_000, 200_000, 1_000_000]).collect();
    let outcomes = in_parallel(&limits, |_, kib| {
        let data = Data::copy_of(&template);
        let command = data.plain_command(&["produce", "orders", "--acks"]);
        let produced = produce_in_waves(limited(&format!("ulimit -v {kib}"), &command), &after);
        let count = check_kept(&data, &before, &after, &produced);
        count.and_then(|count| check_goes_on(&data, count)).unwrap_or_else(|why| panic!("{kib}: {why}"));
        match produced.code {
            Some(0) if produced.offsets.len() == after.len() => Outcome::Works,
            // EAGAIN is what there is for a thread without a stack.
            Some(1) if is_told(&produced.stderr, "annot ") && produced.stderr.contains("(os error 1") => {
                Outcome::Told
            }
            // Where the language's runtime gets no memory, it ends the process.
            _ if !produced.stderr.contains("error: ") || produced.code == Some(127) => Outcome::NotStarted,
            _ => panic!("ulimit -v {kib}: {produced:?}"),
        }
    });
    let count = |wanted| outcomes.iter().filter(|outcome| **outcome == wanted).count();
    let [died, told, works] = [Outcome::NotStarted, Outcome::Told, Outcome::Works].map(count);
    note(&format!(
        "producing with 2 MB to 1 GB of address space: died {died} times, told {told} times, worked {works}"
    ));
    assert!(died > 0 && told > 0, "{outcomes:?}");
    assert!(outcomes.ends_with(&[Outcome::Works; 3]), "60 MB are enough, and a map is 2 GiB: {outcomes:?}");
}

#[test]
fn a_file_that_may_not_grow_is_a_full_disk_at_any_size() {
    if !can_limit("a_file_that_may_not_grow_is_a_full_disk_at_any_size", "ulimit -f 1") {
        return;
    }
    let root = Data::on_disk();
    let template = root.root.path().join("template");
    // Segments of a size that no limit here lets a file reach.
    common::system::tool(
        assert_cmd::cargo::cargo_bin!("tailwater").to_str().unwrap(),
        &["--data", template.to_str().unwrap(), "topic", "create", "orders"],
    );
    let after = lines("after", 1200);
    let limits: Vec<u32> = (0..=96).step_by(4).collect();
    let outcomes = in_parallel(&limits, |_, kib| {
        let data = Data::copy_of(&template);
        let command = data.plain_command(&["produce", "orders", "--acks"]);
        let produced = produce_in_waves(limited(&format!("ulimit -f {kib}"), &command), &after);
        let count = check_kept(&data, &[], &after, &produced).unwrap_or_else(|why| panic!("{kib}: {why}"));
        check_goes_on(&data, count).unwrap_or_else(|why| panic!("{kib}: {why}"));
        assert_eq!(produced.code, Some(1), "{kib} KiB: {produced:?}");
        assert!(is_told(&produced.stderr, "no space left for "), "{kib} KiB: {produced:?}");
        assert!(is_told(&produced.stderr, "File too large (os error 27)"), "{kib} KiB: {produced:?}");
        produced.offsets.len()
    });
    note(&format!("records acknowledged where no file may be larger than 0, 4, ... 96 KiB: {outcomes:?}"));
    assert!(outcomes[0] == 0 && outcomes[1] > 0 && outcomes[limits.len() - 1] > 500, "{outcomes:?}");
}
