//! Makes mistakes of `mistakes.rs` on purpose and runs the searches for lost and wrong records, as they are in
//! every test run: each mistake has to be found, and the engine as it is has to pass. What finds nothing proves nothing.
//!
//! `cargo test -p tailwater-log --features planted-mistakes --test planted_mistakes [-- MISTAKE...]`
//!
//! A mistake may make the engine hang or die, so each is made in a process of its own.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]
#![allow(
    dead_code,
    reason = "some searches find nothing that others do not, and are left to their own tests"
)]

mod common;
mod searches {
    pub(crate) mod bit_rot;
    pub(crate) mod fault_sweep;
    pub(crate) mod power_cuts;
    pub(crate) mod short_sequences;
}

use std::io::{Read, Seek};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use searches::{bit_rot, fault_sweep, power_cuts, short_sequences};
use tailwater_log::mistakes::{Mistake, plant};

/// Which mistake a child process is to make: its name, or `None`.
const MISTAKE: &str = "PLANTED_MISTAKE";

/// A search that takes longer than this with a mistake planted hangs.
const PATIENCE: Duration = Duration::from_secs(900);

/// The searches, those that find most in the shortest time first.
const SEARCHES: &[(&str, fn())] = &[
    (
        "short sequences of calls, durable",
        short_sequences::a_durable_log_keeps_its_promises_through_every_short_sequence,
    ),
    ("group commits", power_cuts::group_commits_from_several_threads_keep_every_acknowledged_record),
    ("failed syncs", power_cuts::a_failed_sync_anywhere_acknowledges_nothing_that_is_then_lost),
    ("failed changes", fault_sweep::a_failed_change_loses_nothing_that_was_acknowledged),
    ("power cuts", power_cuts::every_power_cut_leaves_what_was_promised),
    ("flipped bits", bit_rot::no_flipped_bit_of_a_closed_log_is_taken_for_data),
    ("files cut short", bit_rot::a_file_cut_anywhere_costs_only_what_was_cut_off),
    (
        "short sequences of calls, lazy",
        short_sequences::a_lazy_log_keeps_its_promises_through_every_short_sequence,
    ),
];

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(MISTAKE) {
        plant(Mistake::IN_ONE_ORDER.iter().copied().find(|mistake| format!("{mistake:?}") == name));
        search();
        return ExitCode::SUCCESS;
    }
    let chosen: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let names = ["None".to_owned()]
        .into_iter()
        .chain(Mistake::IN_ONE_ORDER.iter().map(|mistake| format!("{mistake:?}")));
    let names: Vec<_> = names.filter(|name| chosen.is_empty() || chosen.contains(name)).collect();
    assert!(!names.is_empty(), "no mistake has one of the names {chosen:?}");
    let started = Instant::now();
    let (waiting, is_right) = (Mutex::new(names.iter()), AtomicBool::new(true));
    // Two at a time: the searches use one thread each.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(name) = { waiting.lock().unwrap().next() } {
                    is_right.fetch_and(Running::start(name).finish(), Ordering::Relaxed);
                }
            });
        }
    });
    println!("{} mistakes in {:.0} s", names.len() - 1, started.elapsed().as_secs_f64());
    if is_right.into_inner() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the searches until one finds something, which ends the process.
fn search() {
    std::panic::set_hook(Box::new(|found| {
        let text = found.to_string();
        println!("found: {}", text.lines().nth(1).unwrap_or_default().chars().take(160).collect::<String>());
        std::process::exit(1);
    }));
    for (name, search) in SEARCHES {
        println!("search: {name}");
        search();
    }
}

/// A child process that makes one mistake.
struct Running {
    name: String,
    child: Child,
    output: std::fs::File,
    started: Instant,
}

impl Running {
    fn start(name: &str) -> Self {
        let output = tempfile::tempfile().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .env(MISTAKE, name)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { name: name.to_owned(), child, output, started: Instant::now() }
    }

    /// Waits for the end, and tells how it came. True if that is as it should be.
    fn finish(mut self) -> bool {
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if self.started.elapsed() > PATIENCE => break None,
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        if status.is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
        self.output.rewind().unwrap();
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        let line = |prefix: &str| text.lines().rev().find_map(|line| line.strip_prefix(prefix));
        let (by, what) = (line("search: ").unwrap_or("?"), line("found: ").unwrap_or_default());
        let seconds = self.started.elapsed().as_secs_f64();
        let is_found = !status.is_some_and(|status| status.success());
        let is_control = self.name == "None";
        let end = match status {
            Some(_) if is_found => format!("found by {by}: {what}"),
            Some(_) => "nothing found".to_owned(),
            None => format!("{by}: hung"),
        };
        let is_right = is_found != is_control && !(is_control && status.is_none());
        println!("{} {}, {seconds:.1} s: {end}", if is_right { "ok" } else { "WRONG" }, self.name);
        is_right
    }
}
