//! Public calls on a disk that fails and loses power: after each crash, whatever survives of what was pending, the log is
//! what a model of it says was promised.

#![allow(dead_code, unreachable_pub, reason = "the model serves other tests too")]

use arbitrary::{Arbitrary, Unstructured};
use tailwater_log::storage::sim::{Fault, FaultAction, FaultTarget};
use tailwater_log::storage::{SimDisk, Storage};
use tailwater_log::{Durability, Error};

#[path = "../common/oracle.rs"]
mod oracle;
#[path = "../common/workload.rs"]
mod workload;

use oracle::{Choices, DIRECTORY, Search};
use workload::{At, Call, Driven};

/// Error numbers that disks give: EIO, ENOSPC, EINTR.
const ERRNOS: [i32; 3] = [5, 28, 4];
const MAX_STEPS: usize = 40;

#[derive(Arbitrary, Debug)]
struct Plan {
    is_durable: bool,
    steps: Vec<Step>,
    last_crashes: [u64; 4],
    depth: bool,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Append {
        sizes: [u8; 3],
        count: u8,
        asked: u8,
    },
    AppendLarge {
        size: u16,
        asked: u8,
    },
    AppendIf {
        is_right: bool,
    },
    Sync,
    WriteStaged,
    Roll,
    Maintain {
        after_ms: u16,
    },
    TruncateTo(u8),
    TruncateBeforeEnd(u8),
    DeleteBefore(u8),
    DeleteBeforeEnd(u8),
    Reopen,
    DropAndReopen,
    Read,
    Compact {
        after_ms: u16,
    },
    Die,
    /// The power is cut now; the bits tell which of the pending effects survive.
    CutPower {
        survivors: u64,
    },
    /// The power is cut so many operations on, wherever that is.
    CutPowerAfter {
        operations: u8,
        survivors: u64,
    },
    /// Operations fail from the `nth` on, or that one.
    Fail {
        target: u8,
        nth: u8,
        errno: u8,
        is_torn: bool,
        is_lasting: bool,
    },
    ClearFaults,
}

pub(crate) fn run(data: &[u8]) {
    let Ok(plan) = Plan::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let disk = SimDisk::new(1);
    // The directory is there: no name can be relied on whose own sync failed.
    disk.create_directory(DIRECTORY.as_ref()).unwrap();
    disk.sync_directory("/".as_ref()).unwrap();
    let durability = if plan.is_durable { Durability::Durable } else { Durability::Written };
    let mut machine = Machine {
        driven: Driven::new(disk, durability),
        survivors: 0,
        is_faulty: false,
        search: Search::default(),
        choices: Choices::new(plan.last_crashes[0]),
    };
    for step in plan.steps.iter().take(MAX_STEPS) {
        machine.perform(step);
    }
    machine.end(&plan);
}

struct Machine {
    driven: Driven,
    /// Which pending effects survive a cut that was planned.
    survivors: u64,
    /// Whether a fault may strike.
    is_faulty: bool,
    search: Search,
    choices: Choices,
}

impl Machine {
    fn perform(&mut self, step: &Step) {
        match step {
            Step::CutPower { survivors } => self.cut_power(*survivors),
            Step::CutPowerAfter { operations, survivors } => {
                self.driven.disk.cut_power_after(u64::from(*operations) % 32);
                self.survivors = *survivors;
            }
            Step::Fail { .. } => self.plan_fault(step),
            Step::ClearFaults => {
                self.driven.disk.clear_faults();
                self.is_faulty = false;
            }
            _ => self.call(&call(step)),
        }
        if !self.driven.disk.is_powered() {
            self.cut_power(self.survivors);
        }
    }

    fn call(&mut self, call: &Call) {
        let made = self.driven.perform(call);
        if *call == Call::Die {
            // Faults and planned cuts are not taken over.
            self.is_faulty = false;
        }
        if let Err(error) = made {
            let is_expected = !self.driven.disk.is_powered() || self.is_faulty && is_of_disk(&error);
            assert!(is_expected, "{call:?}: {error}");
        }
    }

    fn plan_fault(&mut self, step: &Step) {
        let Step::Fail { target, nth, errno, is_torn, is_lasting } = *step else { return };
        let target = [FaultTarget::Changes, FaultTarget::Opens, FaultTarget::Reads, FaultTarget::Syncs]
            [usize::from(target) % 4];
        let errno = ERRNOS[usize::from(errno) % ERRNOS.len()];
        let action = match (is_torn, target, errno) {
            (true, FaultTarget::Changes, 4) => FaultAction::ShortWrite,
            (true, FaultTarget::Changes, _) => FaultAction::TornWrite(errno),
            _ => FaultAction::Errno(errno),
        };
        let nth = 1 + u64::from(nth) % 32;
        self.driven.disk.plan_fault(Fault { target, nth, action, is_lasting });
        self.driven.is_faulty = true;
        self.is_faulty = true;
    }

    fn cut_power(&mut self, survivors: u64) {
        let mut choices = Choices::new(survivors);
        let after = self.driven.disk.crash(|index, _| match index {
            0..64 => survivors >> index & 1 == 1,
            _ => choices.below(2) == 0,
        });
        self.driven.disk.cut_power_after(0);
        self.driven.log = None;
        self.driven.disk = after;
        let histories = self.driven.oracle.histories.iter_mut();
        histories.for_each(|history| history.written = history.durable);
        self.is_faulty = false;
    }

    /// The disk works again: so does the log, at the latest when it is opened anew. Then the power is cut.
    fn end(mut self, plan: &Plan) {
        self.driven.disk.clear_faults();
        self.driven.disk.cut_power_after(u64::MAX >> 1);
        self.check_live(plan);
        self.crash(plan);
        for call in [Call::Append(vec![90], None), Call::Sync, Call::Read, Call::Reopen, Call::Read] {
            self.driven.perform(&call).unwrap_or_else(|error| panic!("{plan:?}, {call:?}: {error}"));
        }
        self.check_live(plan);
        self.crash(plan);
    }

    fn check_live(&mut self, plan: &Plan) {
        if let Some(log) = self.driven.log.as_ref().filter(|log| !log.is_failed()) {
            // Reading to the end would write it, and find more than was written before.
            log.write_staged().unwrap_or_else(|error| panic!("{plan:?}: {error}"));
        }
        self.driven.check_live().unwrap_or_else(|error| panic!("{plan:?}: {error}"));
    }

    /// Examines what crashes may leave.
    fn crash(&mut self, plan: &Plan) {
        let ways = plan.last_crashes.into_iter().chain([0, u64::MAX]);
        for survivors in ways {
            let image = self.driven.disk.crash(|index, _| survivors >> (index % 64) & 1 == 1);
            self.examine(&image, true, plan);
        }
        let image = self.driven.disk.crash(|_, _| true);
        self.examine(&image, false, plan);
    }

    fn examine(&mut self, image: &SimDisk, is_power_cut: bool, plan: &Plan) {
        let depth = u32::from(plan.depth);
        let found = self.search.examine(image, &self.driven.oracle, is_power_cut, &mut self.choices, depth);
        if let Err(error) = found {
            let trace = self.driven.disk.latest_operations().join("\n  ");
            panic!("{plan:?}: {error}\n  {trace}");
        }
    }
}

fn call(step: &Step) -> Call {
    match *step {
        Step::Append { sizes, count, asked: durability } => {
            let sizes = sizes.map(|size| usize::from(size) * 4);
            Call::Append(sizes[..1 + usize::from(count) % 3].to_vec(), asked(durability))
        }
        Step::AppendLarge { size, asked: durability } => {
            Call::Append(vec![usize::from(size) % 6000], asked(durability))
        }
        Step::AppendIf { is_right } => Call::AppendIf { is_right },
        Step::Sync => Call::Sync,
        Step::WriteStaged => Call::WriteStaged,
        Step::Roll => Call::Roll,
        Step::Maintain { after_ms } => Call::Maintain { after_ms: i64::from(after_ms) },
        Step::TruncateTo(n) => Call::TruncateTo(At::Nth(n.into())),
        Step::TruncateBeforeEnd(n) => Call::TruncateTo(At::BeforeEnd(n.into())),
        Step::DeleteBefore(n) => Call::DeleteBefore(At::Nth(n.into())),
        Step::DeleteBeforeEnd(n) => Call::DeleteBefore(At::BeforeEnd(n.into())),
        Step::Reopen => Call::Reopen,
        Step::DropAndReopen => Call::DropAndReopen,
        Step::Read => Call::Read,
        Step::Compact { after_ms } => Call::Compact { after_ms: i64::from(after_ms) },
        Step::Die => Call::Die,
        Step::CutPower { .. } | Step::CutPowerAfter { .. } | Step::Fail { .. } | Step::ClearFaults => {
            unreachable!("they are no calls")
        }
    }
}

fn asked(number: u8) -> Option<Durability> {
    [None, Some(Durability::Buffered), Some(Durability::Written), Some(Durability::Durable)]
        [usize::from(number) % 4]
}

/// Whether the error says what the disk said, and nothing else.
fn is_of_disk(error: &Error) -> bool {
    match error {
        Error::Failed { cause } => is_of_disk(cause),
        Error::Io { source, .. } | Error::DiskFull { source, .. } => {
            source.raw_os_error().is_some_and(|number| ERRNOS.contains(&number))
        }
        _ => false,
    }
}
