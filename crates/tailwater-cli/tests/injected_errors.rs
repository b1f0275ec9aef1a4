//! Has the system calls of `tailwater produce` fail, one after the other, once and for ever, with a real kernel.
//!
//! `strace` answers in the kernel's place. Whatever fails, and wherever: what was acknowledged is there in order when
//! the directory is opened again, nothing is there twice, the exit code is the one that is documented, and the message
//! names the file and what the operating system said.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::Data;
use common::system::{
    Injection, TracedCall, in_parallel, is_below, note, ordinals_below, parse_trace, sampled, skipped,
    traced, why_not_traced,
};
use common::waves::{
    Produced, check_goes_on, check_kept, empty_template, fill_and_die, lines, produce_in_waves,
};

const TRACED: &str = "openat,flock,fallocate,ftruncate,pread64,pwrite64,fdatasync,fsync,mmap,rename,renameat,\
                      renameat2,unlink,unlinkat,getdents64";

/// What fails how. What the operating system says is a part of the message.
const FAULTS: [(&str, &[&str]); 12] = [
    ("openat", &["error=EMFILE", "error=ENFILE", "error=EIO"]),
    ("flock", &["error=ENOLCK"]),
    ("fallocate", &["error=ENOSPC", "error=EOPNOTSUPP", "error=EIO"]),
    ("ftruncate", &["error=ENOSPC", "error=EIO"]),
    ("pread64", &["error=EIO"]),
    ("pwrite64", &["error=EIO", "error=ENOSPC", "error=EDQUOT", "error=EROFS", "error=EINTR"]),
    ("fdatasync", &["error=EIO", "error=ENOSPC", "error=EINTR"]),
    ("fsync", &["error=EIO", "error=ENOSPC"]),
    ("mmap", &["error=ENOMEM"]),
    ("rename", &["error=EIO", "error=ENOSPC"]),
    ("unlink", &["error=EIO"]),
    ("getdents64", &["error=EIO"]),
];

fn said_by_the_kernel(what: &str) -> &'static str {
    match what {
        "error=EMFILE" => "Too many open files (os error 24)",
        "error=ENFILE" => "Too many open files in system (os error 23)",
        "error=ENOLCK" => "No locks available (os error 37)",
        "error=ENOSPC" => "No space left on device (os error 28)",
        "error=EDQUOT" => "Disk quota exceeded (os error 122)",
        "error=EROFS" => "Read-only file system (os error 30)",
        "error=EOPNOTSUPP" => "Operation not supported (os error 95)",
        "error=ENOMEM" => "Cannot allocate memory (os error 12)",
        "error=EIO" => "Input/output error (os error 5)",
        "error=EINTR" => "Interrupted system call (os error 4)",
        other => panic!("{other}"),
    }
}

/// What a run came to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Outcome {
    /// All was acknowledged, and it ended well.
    Done,
    /// It ended with the message it should.
    Told,
    /// The fault struck something else than the directory, such as memory: only what is kept was looked at.
    Elsewhere,
    /// The call was not made that often this time.
    NotReached,
}

/// Whether the run ended as it should after what failed in it.
fn judge(
    injection: &Injection,
    produced: &Produced,
    injected: &[&TracedCall],
    data: &Path,
) -> Result<Outcome, String> {
    let all = injected.iter().all(|call| is_below(call, data));
    if injected.is_empty() {
        return if produced.code == Some(0) {
            Ok(Outcome::NotReached)
        } else {
            Err("failed without a fault".into())
        };
    }
    let said = &produced.stderr;
    if ["panicked", "unwrap", "RUST_BACKTRACE"].iter().any(|word| said.contains(word)) {
        return Err("it panicked".into());
    }
    if !all {
        return Ok(Outcome::Elsewhere);
    }
    let is_harmless = injection.what == "error=EINTR" || injection.what == "error=EOPNOTSUPP";
    match produced.code {
        Some(0) if produced.offsets.len() < produced.sent => {
            Err("it ended well without acknowledging all".into())
        }
        Some(0) if injection.call == "fdatasync" && !is_harmless => {
            Err("a failed sync went unnoticed".into())
        }
        Some(0) => Ok(Outcome::Done),
        _ if is_harmless => Err("it should have gone on".into()),
        Some(1) => {
            let Some(error) = said.lines().rev().find(|line| line.starts_with("error: ")) else {
                return Err("no error was told".into());
            };
            let is_named = |call: &&TracedCall| {
                let path = call.path.as_ref().unwrap();
                error.contains(path.to_str().unwrap())
            };
            // What says that the directory cannot be written to names the directory.
            let is_read_only = injection.what == "error=EROFS" && error.contains("cannot be written to");
            if !injected.iter().any(is_named) && !is_read_only {
                return Err("the file is not named".into());
            }
            if !error.contains(said_by_the_kernel(injection.what)) {
                return Err("what the operating system said is not told".into());
            }
            Ok(Outcome::Told)
        }
        _ => Err("another exit code".into()),
    }
}

/// Runs `lines` through a producer that works on a copy of `template`, for each fault at each of the calls that it makes,
/// at most `most` of each kind.
fn sweep(name: &str, template: &Path, before: &[String], lines: &[String], most: usize) {
    let run = |injection: Option<&Injection>| {
        let data = Data::copy_of(template);
        let trace = data.root.path().join("trace");
        let command = data.plain_command(&["produce", "orders", "--acks"]);
        let produced = produce_in_waves(traced(&command, TRACED, injection, &trace), lines);
        let calls = parse_trace(&trace);
        (data, produced, calls)
    };
    let (data, produced, calls) = run(None);
    assert_eq!((produced.code, produced.offsets.len()), (Some(0), lines.len()), "{produced:?}");
    let mut injections = Vec::new();
    let mut counts = BTreeMap::new();
    for (call, whats) in FAULTS {
        let ordinals = ordinals_below(&calls, call, &data.path());
        counts.insert(call, ordinals.len());
        for what in whats {
            for is_for_ever in [false, true] {
                // A call that is interrupted for ever is repeated for ever.
                if is_for_ever && *what == "error=EINTR" {
                    continue;
                }
                let some = sampled(&ordinals, most);
                injections.extend(some.into_iter().map(|ordinal| Injection {
                    call,
                    what,
                    ordinal,
                    is_for_ever,
                }));
            }
        }
    }
    drop(data);

    let results = in_parallel(&injections, |_, injection| {
        let (data, produced, calls) = run(Some(injection));
        let injected: Vec<_> = calls.iter().filter(|call| call.is_injected).collect();
        let outcome = judge(injection, &produced, &injected, &data.path());
        let kept = check_kept(&data, before, lines, &produced).and_then(|count| check_goes_on(&data, count));
        let result = outcome.and_then(|outcome| kept.map(|()| outcome));
        let Produced { code, sent, offsets, stderr, .. } = &produced;
        result.map_err(|why| {
            let paths: Vec<_> = injected.iter().filter_map(|call| call.path.as_deref()).collect();
            let acknowledged = offsets.len();
            format!("{injection}: {why}: {code:?}, {acknowledged} of {sent}, {stderr}faults at {paths:?}")
        })
    });
    let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), results.len(), {
        failed.iter().take(20).map(|why| format!("{why}\n\n")).collect::<String>()
    });
    let mut outcomes: BTreeMap<_, usize> = BTreeMap::new();
    results.iter().for_each(|result| *outcomes.entry(*result.as_ref().unwrap()).or_default() += 1);
    note(&format!(
        "{name}: {} runs with a fault: {outcomes:?}; places of each call: {counts:?}",
        results.len()
    ));
    assert!(outcomes[&Outcome::Told] > results.len() / 3, "most faults are told: {outcomes:?}");
}

#[test]
fn a_system_call_that_fails_costs_nothing_that_was_acknowledged() {
    if let Some(why) = why_not_traced() {
        skipped("a_system_call_that_fails_costs_nothing_that_was_acknowledged", &why);
        return;
    }
    let root = Data::on_disk();
    let directory = empty_template(root.root.path());
    sweep("producing", &directory, &[], &lines("after", 90), 10);
}

#[test]
fn a_recovery_in_which_a_system_call_fails_is_repeated_by_the_next_open() {
    if let Some(why) = why_not_traced() {
        skipped("a_recovery_in_which_a_system_call_fails_is_repeated_by_the_next_open", &why);
        return;
    }
    let root = Data::on_disk();
    let directory = empty_template(root.root.path());
    let before = lines("before", 100);
    fill_and_die(&directory, &before);
    sweep("recovering", &directory, &before, &lines("after", 12), 20);
}
