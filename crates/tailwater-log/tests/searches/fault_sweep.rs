//! Fails the n-th operation on the disk, for every n and every error number, once and for ever: what was acknowledged is
//! there, nothing is there twice, and the error says what the disk said. (The method is SQLite's: "How SQLite Is
//! Tested", section 3.)

use std::error::Error as _;

use rustix::io::Errno;
use tailwater_log::storage::sim::{Fault, FaultAction, FaultTarget};
use tailwater_log::storage::{SimDisk, Storage};
use tailwater_log::{Durability, Error};

use crate::common::oracle::{Choices, DIRECTORY, Search, survivals};
use crate::common::workload::{At, Call, Driven};

const ERRNOS: [Errno; 8] = [
    Errno::IO,
    Errno::NOSPC,
    Errno::DQUOT,
    Errno::FBIG,
    Errno::INTR,
    Errno::MFILE,
    Errno::NOMEM,
    Errno::ROFS,
];

/// Calls that reach every place at which the engine uses the disk.
fn calls() -> Vec<Call> {
    vec![
        Call::Append(vec![30], None),
        Call::Append(vec![700, 20], Some(Durability::Durable)),
        Call::Append(vec![30], Some(Durability::Buffered)),
        Call::WriteStaged,
        Call::CloseFiles,
        Call::Append(vec![1500, 1500], Some(Durability::Written)),
        Call::Append(vec![1200], Some(Durability::Buffered)),
        Call::Append(vec![1300], Some(Durability::Durable)),
        Call::Maintain { after_ms: 2_000 },
        Call::Read,
        Call::CloseFiles,
        Call::Read,
        Call::Append(vec![3000], Some(Durability::Buffered)),
        Call::TruncateTo(At::BeforeEnd(2)),
        Call::Append(vec![100, 100], None),
        Call::AppendIf { is_right: true },
        Call::CloseFiles,
        Call::Roll,
        Call::CloseFiles,
        Call::Append(vec![10], Some(Durability::Written)),
        Call::Maintain { after_ms: 60 },
        Call::Retain { bytes: 2_000, held: At::BeforeEnd(1) },
        Call::Maintain { after_ms: 60 },
        Call::MakeSpace { bytes: 500, up_to: At::BeforeEnd(1) },
        Call::DeleteBefore(At::Nth(3)),
        Call::Reopen,
        Call::Read,
        Call::Append(vec![40], None),
        Call::TruncateTo(At::BeforeEnd(1)),
        Call::CloseFiles,
        Call::Append(vec![50], None),
        Call::Append(vec![50], Some(Durability::Buffered)),
        Call::Die,
        Call::Append(vec![60], None),
        Call::DeleteBefore(At::BeforeEnd(0)),
        Call::Append(vec![70], Some(Durability::Buffered)),
        Call::DropAndReopen,
        Call::Append(vec![80], None),
        Call::Reopen,
        Call::Append(vec![900, 900, 30, 900], None),
        Call::Append(vec![900, 20], None),
        Call::Compact { after_ms: 0 },
        Call::CloseFiles,
        Call::Read,
        Call::Compact { after_ms: 2_000 },
        Call::Append(vec![80], None),
        Call::Reopen,
        Call::Compact { after_ms: 2_000 },
    ]
}

/// Whether `error` tells of a fault with this number, and of nothing else.
fn names_fault(error: &Error, errno: Errno) -> bool {
    match error {
        Error::Failed { cause } => names_fault(cause, errno),
        Error::Io { source, .. } | Error::DiskFull { source, .. } => {
            source.raw_os_error() == Some(errno.raw_os_error()) && error.to_string().contains(" /")
        }
        _ => false,
    }
}

/// Says which fault it was when something panics on the way.
struct Told<'t>(&'t Fault, &'t SimDisk);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("with {:?}, after\n  {}", self.0, self.1.latest_operations().join("\n  "));
        }
    }
}

struct Sweep {
    durability: Durability,
    search: Search,
    faults: u64,
    hits: u64,
}

impl Sweep {
    /// Makes all calls with this fault, then without it, and examines what a crash may leave after either.
    /// Returns whether the fault struck.
    fn run(&mut self, fault: Fault, errno: Errno) -> bool {
        let disk = SimDisk::new(1);
        // The directory is there: no name can be relied on whose own sync failed.
        disk.create_directory(DIRECTORY.as_ref()).unwrap();
        disk.sync_directory("/".as_ref()).unwrap();
        let _told = Told(&fault, &disk);
        let mut driven = Driven::new(disk.clone(), self.durability);
        driven.is_faulty = true;
        driven.disk.plan_fault(fault);
        let mut choices = Choices::new(fault.nth ^ u64::from(fault.is_lasting) << 32);
        let mut struck = 0;
        for call in calls() {
            let describe = || format!("{fault:?} at {call:?} on a {:?} log", self.durability);
            if let Err(error) = driven.perform(&call) {
                assert!(names_fault(&error, errno), "{}: {error} ({:?})", describe(), error.source());
                struck += 1;
                // What a crash right behind the error may leave; of a lasting fault the first errors will do.
                if struck <= 2 {
                    self.crash(&driven, &mut choices, &describe());
                }
            }
        }
        let describe = || format!("{fault:?} over, on a {:?} log", self.durability);
        // The disk works again: so does the log, at the latest when it is opened anew.
        driven.disk.clear_faults();
        driven.check_live().unwrap_or_else(|error| panic!("{}: {error}", describe()));
        for call in [Call::Append(vec![90], None), Call::Sync, Call::Read, Call::Reopen, Call::Read] {
            driven.perform(&call).unwrap_or_else(|error| panic!("{}, {call:?}: {error}", describe()));
        }
        driven.check_live().unwrap_or_else(|error| panic!("{}: {error}", describe()));
        self.crash(&driven, &mut choices, &describe());
        self.faults += 1;
        self.hits += u64::from(struck > 0);
        struck > 0
    }

    /// Fails one operation in every way. False if there was none to fail.
    fn fail_nth(&mut self, target: FaultTarget, nth: u64) -> bool {
        let mut is_there = false;
        for errno in ERRNOS {
            let number = errno.raw_os_error();
            for action in [FaultAction::Errno(number), FaultAction::TornWrite(number)] {
                if target != FaultTarget::Changes && action != FaultAction::Errno(number) {
                    continue;
                }
                is_there |= self.run(Fault { target, nth, action, is_lasting: true }, errno);
                is_there |= self.run(Fault { target, nth, action, is_lasting: false }, errno);
            }
        }
        is_there
    }

    fn crash(&mut self, driven: &Driven, choices: &mut Choices, what: &str) {
        let fail = |way: &dyn std::fmt::Debug, error: String| -> ! {
            let trace = driven.disk.latest_operations().join("\n  ");
            panic!("{what}, survived {way:?}: {error}\n  {trace}")
        };
        for way in survivals(driven.disk.pending().min(12), choices, 3) {
            let image = driven.disk.crash(|index, _| way.get(index).copied().unwrap_or(index % 2 == 0));
            if let Err(error) = self.search.examine(&image, &driven.oracle, true, choices, 0) {
                fail(&way, error);
            }
        }
    }
}

/// Fails each operation of this kind, until there is none left to fail.
fn sweep(target: FaultTarget) {
    for durability in [Durability::Durable, Durability::Written] {
        let mut sweep = Sweep { durability, search: Search::default(), faults: 0, hits: 0 };
        let mut nth = 1;
        // Operations that are left when all have been failed for ever were told of, at the latest by the last one.
        while sweep.fail_nth(target, nth) {
            nth += 1;
        }
        let Sweep { search, faults, hits, .. } = sweep;
        let states = search.states();
        println!(
            "{target:?} of a {durability:?} log: {nth} operations, {faults} faults, {hits} told of, {states} states"
        );
        assert!(nth > 15 && hits > faults / 4);
    }
}

pub(crate) fn a_failed_change_loses_nothing_that_was_acknowledged() {
    sweep(FaultTarget::Changes);
}

pub(crate) fn a_failed_open_loses_nothing_that_was_acknowledged() {
    sweep(FaultTarget::Opens);
}

pub(crate) fn a_failed_read_loses_nothing_that_was_acknowledged() {
    sweep(FaultTarget::Reads);
}
