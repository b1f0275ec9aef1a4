//! Every sequence of at most three public calls on a fresh directory, and a few longer ones, with the power cut at every
//! operation of the last.
//!
//! Short sequences find most crash bugs (Mohan et al., "Finding Crash-Consistency Bugs with Bounded Black-Box Crash
//! Testing", OSDI 2018). Each prefix of a sequence is a sequence too, so only the operations of the last call are cut.

use tailwater_log::Durability;
use tailwater_log::storage::SimDisk;

use crate::common::oracle::{Choices, Search, survivals};
use crate::common::workload::{At, Call, Driven};

/// The calls that sequences are made of. Two of the large batches fill a segment.
fn calls() -> Vec<Call> {
    vec![
        Call::Append(vec![30], None),
        Call::Append(vec![30], Some(Durability::Buffered)),
        Call::Append(vec![1500, 200, 10], Some(Durability::Written)),
        Call::Append(vec![1400, 900], Some(Durability::Durable)),
        Call::AppendIf { is_right: true },
        Call::Sync,
        Call::WriteStaged,
        Call::Roll,
        Call::Maintain { after_ms: 2_000 },
        Call::TruncateTo(At::BeforeEnd(1)),
        Call::TruncateTo(At::Nth(0)),
        Call::DeleteBefore(At::BeforeEnd(1)),
        Call::DeleteBefore(At::BeforeEnd(0)),
        Call::Retain { bytes: 0, held: At::BeforeEnd(0) },
        Call::MakeSpace { bytes: 1, up_to: At::BeforeEnd(1) },
        Call::Compact { after_ms: 2_000 },
        Call::Reopen,
        Call::DropAndReopen,
        Call::CloseFiles,
        Call::Die,
        Call::CutPower { survives: false },
    ]
}

/// Sequences that are too long to try all of, and that something depends on.
fn longer_sequences() -> Vec<Vec<Call>> {
    let durable = Some(Durability::Durable);
    let compact = Call::Compact { after_ms: 2_000 };
    vec![
        // The checkpoint names a place in a file that compaction then replaces.
        vec![
            Call::Append(vec![1400, 900], durable),
            Call::Reopen,
            Call::Append(vec![1500, 200], durable),
            compact.clone(),
        ],
        // What supersedes a record of one segment is in the next, and not durable.
        vec![
            Call::Append(vec![30, 2900], durable),
            Call::Roll,
            Call::Append(vec![30], durable),
            Call::Append(vec![900], Some(Durability::Written)),
            compact.clone(),
        ],
        // Segments of several epochs become one, and tombstones go.
        vec![
            Call::Append(vec![1400, 900, 20, 20, 20], durable),
            Call::TruncateTo(At::BeforeEnd(1)),
            Call::Append(vec![400, 900], durable),
            compact.clone(),
            Call::Append(vec![300, 10, 10], durable),
            compact.clone(),
            compact.clone(),
        ],
        // A compaction that was interrupted is made again.
        vec![
            Call::Append(vec![1400, 900], durable),
            Call::Append(vec![1400, 900], durable),
            Call::Append(vec![1400, 900], durable),
            compact.clone(),
            Call::Die,
            Call::Append(vec![1400, 900], durable),
            compact,
        ],
    ]
}

/// Makes the calls; the power goes after `cut` operations of the last one. Returns how many operations that one made.
fn run(calls: &[&Call], durability: Durability, cut: Option<u64>) -> (Driven, u64) {
    let mut driven = Driven::new(SimDisk::new(1), durability);
    let Some((last, first)) = calls.split_last() else { return (driven, 0) };
    for call in first {
        driven.perform(call).unwrap_or_else(|error| panic!("{calls:?}: {error}"));
    }
    let before = driven.disk.operation_count();
    if let Some(cut) = cut {
        driven.disk.cut_power_after(cut);
    }
    let ended = driven.perform(last);
    assert!(ended.is_ok() || cut.is_some(), "{calls:?}: {ended:?}");
    let made = driven.disk.operation_count().saturating_sub(before);
    (driven, made)
}

/// Examines what each cut within the last call may leave.
fn search_sequence(search: &mut Search, calls: &[&Call], durability: Durability) {
    let (whole, operations) = run(calls, durability, None);
    let mut choices = Choices::new(operations ^ (search.states() as u64) << 8);
    let mut examine = |driven: &Driven, cut: Option<u64>| {
        let fail = |way: &str, error: String| -> ! {
            let trace = driven.disk.latest_operations().join("\n  ");
            panic!("{calls:?} on a {durability:?} log, cut after {cut:?}, survived {way}: {error}\n  {trace}")
        };
        for way in survivals(driven.disk.pending(), &mut choices, 4) {
            let image = driven.disk.crash(|index, _| way[index]);
            let depth = u32::from(choices.below(3) == 0);
            if let Err(error) = search.examine(&image, &driven.oracle, true, &mut choices, depth) {
                fail(&format!("{way:?}"), error);
            }
        }
        if let Err(error) = search.examine(&driven.disk.kill(), &driven.oracle, false, &mut choices, 0) {
            fail("everything: the process died", error);
        }
    };
    examine(&whole, None);
    for cut in 0..operations {
        examine(&run(calls, durability, Some(cut)).0, Some(cut));
    }
}

fn search_all(durability: Durability) -> Search {
    let calls = calls();
    let mut search = Search::default();
    for sequence in longer_sequences() {
        search_sequence(&mut search, &sequence.iter().collect::<Vec<_>>(), durability);
    }
    for first in &calls {
        search_sequence(&mut search, &[first], durability);
        for second in &calls {
            search_sequence(&mut search, &[first, second], durability);
            for third in &calls {
                search_sequence(&mut search, &[first, second, third], durability);
            }
        }
    }
    println!("{} states of a {durability:?} log, {} different disks", search.states(), search.images());
    println!("rules: {}", search.rules());
    search
}

pub(crate) fn a_durable_log_keeps_its_promises_through_every_short_sequence() {
    assert!(search_all(Durability::Durable).states() > 20_000);
}

pub(crate) fn a_lazy_log_keeps_its_promises_through_every_short_sequence() {
    assert!(search_all(Durability::Written).states() > 20_000);
}
