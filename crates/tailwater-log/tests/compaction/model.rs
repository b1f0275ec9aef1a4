//! Any sequence of calls on a compacted log, compared with a model of what has to be there.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use proptest::prelude::*;
use tailwater_log::storage::Storage;
use tailwater_log::{
    CompactionLimits, CompactionOutcome, Durability, FetchIsolation, FetchLimits, Log, NewRecord, Offset,
    Timestamp, WhenFull,
};

use crate::fixture::{DELETE_RETENTION_MS, Fixture, Seen};

#[derive(Clone, Debug)]
enum Step {
    /// Keys and values of one batch; no value is a tombstone.
    Append(Vec<(u8, Option<u16>)>, bool),
    Seal,
    Advance(u16),
    Compact {
        held: Option<u8>,
        stop_after: Option<u8>,
    },
    Truncate(u8),
    DeleteBefore(u8),
    Reopen,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let record = (0..12u8, proptest::option::weighted(0.75, 0..900u16));
    prop_oneof![
        6 => (proptest::collection::vec(record, 1..6), any::<bool>()).prop_map(|(records, alone)| Step::Append(records, alone)),
        3 => Just(Step::Seal),
        2 => (0..2_000u16).prop_map(Step::Advance),
        4 => (proptest::option::of(any::<u8>()), proptest::option::weighted(0.2, 0..4u8))
            .prop_map(|(held, stop_after)| Step::Compact { held, stop_after }),
        1 => any::<u8>().prop_map(Step::Truncate),
        1 => any::<u8>().prop_map(Step::DeleteBefore),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ]
}

#[derive(Clone, Debug)]
struct ModelRecord {
    seen: Seen,
    /// A compaction may have removed it, in favour of a later one.
    may_be_superseded: bool,
    /// When a compaction first kept it as a tombstone.
    kept_at: Option<i64>,
    /// It is a tombstone that a compaction may have removed.
    may_be_deleted: bool,
}

/// What was appended, at its offset, and what compaction may have removed of it.
#[derive(Clone, Debug, Default)]
struct Model {
    records: Vec<ModelRecord>,
    start: usize,
}

impl Model {
    /// Notes that a compaction begins that may see everything below `end`.
    fn begin_compaction(&mut self, end: usize, now: i64, held: u64, lag_ms: i64) {
        let mut last = BTreeMap::new();
        for (offset, record) in self.records[..end].iter_mut().enumerate().rev() {
            if now - record.seen.4 < lag_ms {
                continue;
            }
            let key = record.seen.1.clone();
            let is_last = *last.entry(key).or_insert(offset) == offset;
            record.may_be_superseded |= !is_last;
            if record.seen.2.is_none() && is_last {
                let is_over = record.kept_at.is_some_and(|kept| now - kept >= DELETE_RETENTION_MS as i64);
                record.may_be_deleted |= is_over && (offset as u64) < held;
                record.kept_at.get_or_insert(now);
            }
        }
    }

    /// Compares what is found with what was appended.
    fn check(&self, found: &[Seen]) -> Result<(), TestCaseError> {
        let mut found = found.iter().peekable();
        for record in &self.records[self.start..] {
            if found.peek().is_some_and(|seen| seen.0 == record.seen.0) {
                // K2, K3: as it was appended.
                prop_assert_eq!(found.next(), Some(&record.seen));
            } else {
                // K1, K4 to K7: it is gone only if it may be.
                prop_assert!(record.may_be_superseded || record.may_be_deleted, "{:?} is missing", record);
            }
        }
        prop_assert_eq!(found.next(), None, "nothing else is there");
        Ok(())
    }

    /// Below `cleaned` each key is there once at most.
    fn check_cleaned(found: &[Seen], cleaned: u64) -> Result<(), TestCaseError> {
        let mut keys = BTreeMap::new();
        for seen in found.iter().filter(|seen| seen.0 < cleaned) {
            let other = keys.insert(seen.1.clone(), seen.0);
            prop_assert!(other.is_none(), "{:?} is at {:?} and {}, below {}", seen.1, other, seen.0, cleaned);
        }
        Ok(())
    }
}

fn run_model(steps: &[Step], lag_ms: u64, map_bytes: u32) -> Result<(), TestCaseError> {
    let mut fixture = Fixture::new(|config| {
        config.min_compaction_lag_ms = lag_ms;
        config.compaction_map_bytes = map_bytes;
    });
    let mut model = Model::default();
    for step in steps {
        fixture.clock.advance_ms(1);
        let now = tailwater_log::Clock::now(&*fixture.clock).as_millis();
        match step {
            Step::Append(records, alone) => {
                let values: Vec<_> = records
                    .iter()
                    .map(|(key, size)| {
                        let number = model.records.len();
                        let value =
                            size.map(|size| format!("{number} {}", "v".repeat(size.into())).into_bytes());
                        (format!("key {key}").into_bytes(), value)
                    })
                    .collect();
                let created = |n: usize| Timestamp::from_millis(now - 500 + 333 * n as i64);
                let new: Vec<_> = values
                    .iter()
                    .enumerate()
                    .map(|(n, (key, value))| NewRecord {
                        key: Some(key),
                        value: value.as_deref(),
                        created_at: Some(created(n)),
                        ..NewRecord::default()
                    })
                    .collect();
                for chunk in new.chunks(if *alone { 1 } else { new.len() }) {
                    let staged =
                        fixture.log.append(chunk, Some(Durability::Buffered), WhenFull::Wait).unwrap();
                    staged.wait().unwrap();
                }
                fixture.log.sync().unwrap();
                for (n, (key, value)) in values.into_iter().enumerate() {
                    let seen = (model.records.len() as u64, key, value, created(n).as_millis(), now);
                    let record =
                        ModelRecord { seen, may_be_superseded: false, kept_at: None, may_be_deleted: false };
                    model.records.push(record);
                }
            }
            Step::Seal => fixture.seal(),
            Step::Advance(ms) => fixture.clock.advance_ms((*ms).into()),
            Step::Compact { held, stop_after } => {
                let end = model.records.len();
                let held = held.map_or(u64::MAX >> 1, |held| u64::from(held) % (end as u64 + 1));
                model.begin_compaction(end, now, held, lag_ms as i64);
                let mut limits = CompactionLimits::default();
                limits.held = Offset::new(held);
                let mut left = stop_after.map(i32::from);
                let report = fixture.log.compact(&limits, &mut |_| match &mut left {
                    Some(0) => ControlFlow::Break(()),
                    Some(left) => {
                        *left -= 1;
                        ControlFlow::Continue(())
                    }
                    None => ControlFlow::Continue(()),
                });
                let report = report.unwrap();
                prop_assert!(report.left_alone.is_empty());
                if matches!(report.outcome, CompactionOutcome::Done | CompactionOutcome::Nothing) {
                    Model::check_cleaned(&fixture.read(), report.cleaned_end.get())?;
                }
            }
            Step::Truncate(at) => {
                let span = model.records.len() - model.start;
                let to = model.start + usize::from(*at) % (span + 1);
                fixture.log.truncate_to(Offset::new(to as u64)).unwrap();
                model.records.truncate(to);
            }
            Step::DeleteBefore(at) => {
                let span = model.records.len() - model.start;
                model.start += usize::from(*at) % (span / 3 + 1);
                fixture.log.delete_records_before(Offset::new(model.start as u64)).unwrap();
            }
            Step::Reopen | Step::Crash => {
                let is_crash = matches!(step, Step::Crash);
                let (disk, options) = (fixture.disk.clone(), fixture.options());
                if !is_crash {
                    fixture.log.close().unwrap();
                }
                fixture.disk = if is_crash { disk.crash(|_, _| false) } else { disk };
                let storage: Arc<dyn Storage> = Arc::new(fixture.disk.clone());
                fixture.log = Log::open(storage, "/log".as_ref(), options).unwrap();
            }
        }
        let found = fixture.read();
        prop_assert_eq!(fixture.log.log_end_offset().get() as usize, model.records.len());
        model.check(&found)?;
        // From any offset a reader comes to the same records.
        for from in (model.start..model.records.len()).step_by(5) {
            let limits = FetchLimits { max_records: 1, max_bytes: 1 };
            let from = Offset::new(from as u64);
            let fetched = fixture.log.fetch(from, limits, FetchIsolation::Visible, None).unwrap();
            let next = found.iter().find(|seen| seen.0 >= from.get()).map(|seen| seen.0);
            prop_assert_eq!(fetched.iter().next().map(|record| record.offset().get()), next);
        }
        // Where a time is asked for, no record that was appended since is missed.
        for seen in found.iter().step_by(7) {
            let offset = fixture.log.offset_for_time(Timestamp::from_millis(seen.4)).unwrap();
            prop_assert!(
                offset.is_some_and(|offset| offset.get() <= seen.0),
                "{:?} for {:?}",
                offset,
                seen.0
            );
        }
    }
    let report = fixture.log.verify(&mut |_| {}).unwrap();
    prop_assert!(report.damage.is_empty(), "{:?}", report.damage);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_calls_keeps_what_has_to_be_kept(
        steps in proptest::collection::vec(step(), 1..40),
        lag_ms in prop_oneof![Just(0u64), Just(1_500)],
        map_bytes in prop_oneof![Just(1024u32), Just(1 << 20)],
    ) {
        run_model(&steps, lag_ms, map_bytes)?;
    }
}
