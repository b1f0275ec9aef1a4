//! Two writers that start at the same moment: one at a time gets the directory, and nothing of either is lost.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};

use common::Data;
use common::system::note;

const RACES: usize = 100;
/// How many lines each writer has.
const LINES: usize = 5;

fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Gives each child its lines, and then waits for all.
fn finish(mut children: Vec<Child>, lines: &[Vec<String>]) -> Vec<Output> {
    for (child, lines) in children.iter_mut().zip(lines) {
        let mut input = child.stdin.take().unwrap();
        // One that was refused reads nothing.
        let _ = input.write_all(format!("{}\n", lines.join("\n")).as_bytes());
    }
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

fn lines(race: usize, writer: usize) -> Vec<String> {
    (0..LINES).map(|n| format!("{race}/{writer}/{n}")).collect()
}

/// Puts what was acknowledged into its place in `there`, which must be free.
fn note_acknowledged(there: &mut Vec<Option<String>>, output: &Output, lines: &[String]) {
    let acks = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(acks.lines().count(), lines.len(), "{output:?}");
    for (ack, line) in acks.lines().zip(lines) {
        let offset: usize = ack.strip_prefix("0\t").unwrap().parse().unwrap();
        there.resize(there.len().max(offset + 1), None);
        let before = there[offset].replace(line.clone());
        assert_eq!(before, None, "offset {offset} was given twice");
    }
}

fn check(data: &Data, there: &[Option<String>]) {
    assert_eq!(data.run(&["verify"]).code, 0);
    let consumed = data.ok(&["consume", "orders"]);
    let there: Vec<_> = there.iter().map(|line| line.as_deref().unwrap()).collect();
    assert_eq!(consumed.lines().collect::<Vec<_>>(), there, "every acknowledged record, at its offset, once");
}

#[test]
fn of_two_writers_that_start_together_one_is_refused_and_told_by_whom() {
    let data = Data::on_disk();
    data.ok(&["topic", "create", "orders", "--set", "segment_bytes=4096"]);
    let mut there = Vec::new();
    let mut wins = [0, 0];
    for race in 0..RACES {
        let both = [lines(race, 0), lines(race, 1)];
        let mut commands = both.each_ref().map(|_| data.plain_command(&["produce", "orders", "--acks"]));
        let children = commands.each_mut().map(start);
        let processes = children.each_ref().map(Child::id);
        // Neither has input yet, so whoever comes first holds the directory until the other was refused.
        let mut children = children.map(Some);
        let first = loop {
            let ended =
                children.iter_mut().position(|child| child.as_mut().unwrap().try_wait().unwrap().is_some());
            match ended {
                Some(loser) => break 1 - loser,
                None => std::thread::sleep(std::time::Duration::from_micros(200)),
            }
        };
        let loser = children[1 - first].take().unwrap().wait_with_output().unwrap();
        let told = String::from_utf8(loser.stderr).unwrap();
        assert_eq!(loser.status.code(), Some(4), "race {race}: {told}");
        assert!(loser.stdout.is_empty());
        let directory = data.path();
        let holder = told
            .strip_prefix(&format!("error: {} is in use by ", directory.display()))
            .and_then(|rest| rest.split_once(": close it there"));
        let (holder, _) = holder.unwrap_or_else(|| panic!("race {race}: {told}"));
        // It once named the holder of the race before, if the winner had the lock and had not left its name yet.
        assert_eq!(holder, format!("process {} (tailwater)", processes[first]), "race {race}");
        let winner = finish(vec![children[first].take().unwrap()], &both[first..=first]).remove(0);
        assert_eq!((winner.status.code(), winner.stderr.len()), (Some(0), 0), "race {race}: {winner:?}");
        note_acknowledged(&mut there, &winner, &both[first]);
        wins[first] += 1;
        if race % 10 == 9 {
            check(&data, &there);
        }
    }
    check(&data, &there);
    note(&format!("{RACES} races, won {wins:?} times"));
    assert_eq!(there.len(), RACES * LINES);
}

#[test]
fn writers_that_wait_for_each_other_go_one_after_the_other() {
    let data = Data::on_disk();
    let mut there = Vec::new();
    for race in 0..RACES / 2 {
        // Nobody has made the directory or the topic: in the first race they are made by one of them.
        let all = [lines(race, 0), lines(race, 1), lines(race, 2)];
        let arguments = ["--lock-timeout", "60s", "produce", "orders", "--acks"];
        let children = all.iter().map(|_| start(&mut data.plain_command(&arguments))).collect();
        for (output, lines) in finish(children, &all).iter().zip(&all) {
            assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "race {race}: {output:?}");
            note_acknowledged(&mut there, output, lines);
        }
    }
    check(&data, &there);
    assert_eq!(there.len(), RACES / 2 * 3 * LINES);
}

#[test]
fn writers_that_make_the_same_new_directory_leave_one_sound_one() {
    for race in 0..RACES / 4 {
        let data = Data::on_disk();
        let both = [lines(race, 0), lines(race, 1)];
        let children =
            both.iter().map(|_| start(&mut data.plain_command(&["produce", "orders", "--acks"]))).collect();
        let mut there = Vec::new();
        let mut done = 0;
        for (output, lines) in finish(children, &both).iter().zip(&both) {
            match output.status.code() {
                Some(0) => {
                    note_acknowledged(&mut there, output, lines);
                    done += 1;
                }
                Some(4) => assert!(output.stdout.is_empty(), "race {race}: {output:?}"),
                _ => panic!("race {race}: {output:?}"),
            }
        }
        assert!(done > 0, "race {race}: both were refused");
        check(&data, &there);
        let mut lock = String::new();
        std::fs::File::open(data.path().join("LOCK")).unwrap().read_to_string(&mut lock).unwrap();
        assert!(lock.starts_with("process ") && lock.ends_with(" (tailwater)"), "{lock:?}");
    }
}
