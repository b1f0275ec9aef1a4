//! A state of the search, and all that can happen next.

use super::disk::{Cell, CheckpointFile, Disk, File, Slot, Steps, Stop};
use super::history::{self, History, Rot, Verdict};
use super::operations::{Opened, Operation, possible};
use super::process::Process;
use super::recovery;
use super::rules::{Rules, Scope};

/// The disk, the process that has the log open (if one has), and what was promised.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    disk: Disk,
    process: Option<Process>,
    histories: Vec<History>,
    next_id: u8,
    operations: u8,
    crashes: u8,
    failed_syncs: u8,
    rot: Rot,
}

/// What comes next: a state, the end of a search in which nothing is left to check, or a broken promise.
pub(crate) enum Next {
    State(Box<State>),
    End,
    Broken(&'static str),
}

/// What can happen next, each with a label for the traces of broken promises.
pub(crate) type Successors = Vec<(String, Next)>;

impl State {
    /// A log that was just made, and is open.
    pub(crate) fn first() -> Self {
        let slot = Slot { sequence: 1, is_dirty: false, epoch: 1, ..Slot::EMPTY };
        let unwritten = Slot { epoch: 1, ..Slot::EMPTY };
        let file = File::whole(1, 0, Vec::new());
        let disk = Disk::new(0, file, CheckpointFile::new([slot, unwritten]));
        let process = Process::of_clean(&disk.segments(), &slot);
        Self {
            disk,
            process: Some(process),
            histories: vec![History::new()],
            next_id: 1,
            operations: 0,
            crashes: 0,
            failed_syncs: 0,
            rot: Rot::default(),
        }
    }

    pub(crate) fn successors(&self, rules: Rules, scope: &Scope) -> Successors {
        match &self.process {
            Some(process) => self.while_open(process, rules, scope),
            None => self.while_closed(rules, scope),
        }
    }

    fn while_open(&self, process: &Process, rules: Rules, scope: &Scope) -> Successors {
        let mut next = Vec::new();
        let mut idle = self.clone();
        for history in &mut idle.histories {
            history.least = history.visible.min(history.content.len() as u8);
        }
        idle.crash("", scope, &mut next);
        if process.is_failed || self.operations >= scope.operations {
            return next;
        }
        for operation in possible(process, &self.disk, scope) {
            if self.reuses_lost_offset(process, operation) {
                let what = "an offset is given out again in the epoch in which its record was lost";
                next.push((operation.to_string(), Next::Broken(what)));
            } else {
                self.operate(operation, rules, scope, &mut next);
            }
        }
        next
    }

    fn reuses_lost_offset(&self, process: &Process, operation: Operation) -> bool {
        let reused = process.end..=process.end + 1;
        matches!(operation, Operation::Append(_))
            && self.histories[0]
                .lost
                .iter()
                .any(|(offset, epoch)| reused.contains(offset) && *epoch == process.epoch)
    }

    /// Runs an operation whole, with a crash after each of its steps, and with each of its syncs failing.
    fn operate(&self, operation: Operation, rules: Rules, scope: &Scope, next: &mut Successors) {
        let mut before = self.clone();
        before.operations += 1;
        for history in &mut before.histories {
            history.least = history.visible;
        }
        let run = |mut steps: Steps| {
            let mut state = before.clone();
            let State { disk, process, histories, next_id, .. } = &mut state;
            let process = process.as_mut().expect("only open logs are operated on");
            let mut opened = Opened { disk, process, histories, next_id };
            let result = opened.run(operation, &mut steps, rules, scope);
            (state, result, steps)
        };
        let (mut whole, result, steps) = run(Steps::all());
        assert_eq!(result, Ok(()), "{operation} without faults");
        if operation == Operation::Close {
            whole.process = None;
            for history in &mut whole.histories {
                history.least = history.visible;
            }
        }
        next.push((operation.to_string(), Next::State(Box::new(whole))));
        if self.crashes < scope.crashes {
            for taken in 1..steps.taken {
                let label = format!("{operation} up to step {taken} of {}, then ", steps.taken);
                run(Steps::crash_after(taken)).0.crash(&label, scope, next);
            }
        }
        if self.failed_syncs < scope.failed_syncs {
            for nth in 1..=steps.syncs {
                let mut state = run(Steps::fail_sync(nth)).0;
                if let Some(process) = &mut state.process {
                    process.is_failed = true;
                }
                state.note_failed_sync();
                next.push((format!("{operation} with sync {nth} failing"), Next::State(Box::new(state))));
            }
        }
    }

    fn note_failed_sync(&mut self) {
        self.failed_syncs += 1;
        for history in &mut self.histories {
            history.least = history.durable;
        }
    }

    /// The death of the process, and each way in which a power cut may leave the disk.
    fn crash(&self, label: &str, scope: &Scope, next: &mut Successors) {
        if self.crashes >= scope.crashes {
            return;
        }
        let mut killed = self.clone();
        killed.process = None;
        killed.crashes += 1;
        next.push((format!("{label}death of the process"), Next::State(Box::new(killed))));
        self.cut_power(label, scope, next);
    }

    fn cut_power(&self, label: &str, scope: &Scope, next: &mut Successors) {
        for disk in self.disk.after_power_cut(scope.has_torn_batches) {
            let label = format!("{label}power cut that leaves {disk}");
            let mut histories = self.histories.clone();
            for history in &mut histories {
                history.least = history.durable;
            }
            let crashes = self.crashes + 1;
            let state = State { disk, process: None, histories, crashes, ..self.clone() };
            next.push((label, Next::State(Box::new(state))));
        }
    }

    fn while_closed(&self, rules: Rules, scope: &Scope) -> Successors {
        let mut next = self.rotten(scope);
        let run = |mut steps: Steps| {
            let mut state = self.clone();
            let result = recovery::open(&mut state.disk, &mut steps, rules, scope);
            (state, result, steps)
        };
        let (opened, result, steps) = run(Steps::all());
        next.push(("open".to_owned(), opened.after_open(result)));
        if self.rot.batch.is_some() {
            return next;
        }
        if self.crashes < scope.crashes {
            for taken in 1..steps.taken {
                let label = format!("open up to step {taken} of {}, then ", steps.taken);
                run(Steps::crash_after(taken)).0.crash(&label, scope, &mut next);
            }
        }
        if self.failed_syncs < scope.failed_syncs {
            for nth in 1..=steps.syncs {
                let mut state = run(Steps::fail_sync(nth)).0;
                state.note_failed_sync();
                next.push((format!("open with sync {nth} failing"), Next::State(Box::new(state))));
            }
        }
        if self.crashes < scope.crashes && self.disk.has_pending() {
            self.cut_power("while closed, ", scope, &mut next);
        }
        next
    }

    fn after_open(mut self, result: Result<(Process, bool), Stop>) -> Next {
        let (process, is_clean) = match result {
            Ok(opened) => opened,
            Err(Stop::Corrupt(_)) if self.rot.batch.is_some() => return Next::End,
            Err(Stop::Corrupt(what)) => return Next::Broken(what),
            Err(stop) => unreachable!("an open without faults ended with {stop:?}"),
        };
        match history::check(&process, &self.disk.segments(), &self.histories, self.rot, is_clean) {
            Err(broken) => Next::Broken(broken),
            Ok(Verdict::Kept(next)) if self.rot.batch.is_none() => {
                self.histories = vec![next];
                self.process = Some(process);
                Next::State(Box::new(self))
            }
            Ok(_) => Next::End,
        }
    }

    /// The ways in which durable bytes may rot.
    fn rotten(&self, scope: &Scope) -> Successors {
        let mut next = Vec::new();
        if scope.has_rotten_slot && !self.rot.slot {
            let mut state = self.clone();
            state.rot.slot = true;
            state.disk.rot_newest_slot();
            next.push(("the newest slot rots".to_owned(), Next::State(Box::new(state))));
        }
        if !scope.has_rotten_batch || self.rot.batch.is_some() {
            return next;
        }
        for (base, file) in self.disk.segments() {
            for (index, cell) in file.live.iter().enumerate() {
                let Cell::Batch { offset, .. } = *cell else { continue };
                if file.durable[index] != *cell {
                    continue;
                }
                let mut state = self.clone();
                state.rot.batch = Some(offset);
                if let Some(file) = state.disk.file(base) {
                    file.live[index] = Cell::Torn;
                    file.durable[index] = Cell::Torn;
                }
                next.push((format!("batch {offset} in {base}.log rots"), Next::State(Box::new(state))));
            }
        }
        next
    }
}
