//! What compaction does to one batch: which records stay, and how the batch looks then.
//!
//! - A record goes only if a later one of its key stays, or if it is a tombstone whose time is over.
//! - Offsets, order, create and append times of what stays never change.

use super::body::{self, Content, NewBody};
use super::key_map::KeyMap;
use crate::format::{BatchHeader, DELETE_HORIZON, MalformedRecord, RecordView};
use crate::limits::MAX_BATCH_BYTES;
use crate::mistakes::{Mistake, is_planted};
use crate::{Offset, Timestamp, ttl};

/// What decides about records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cleaner<'m> {
    /// The last offset of each key, as far as it is known.
    pub(crate) map: &'m KeyMap,
    pub(crate) now: Timestamp,
    /// Tombstones from here on stay.
    pub(crate) held: Offset,
    /// Whether all records below the batch could be looked at: where one could not, it may be an older one of a key.
    pub(crate) is_complete: bool,
    /// The level at which Zstandard compresses what is written anew.
    pub(crate) zstd_level: i32,
}

/// A batch after its cleaning.
#[derive(Debug)]
pub(crate) struct CleanedBatch {
    pub(crate) outcome: Outcome,
    /// Records that are gone: superseded ones and tombstones.
    pub(crate) removed_records: u64,
    pub(crate) removed_tombstones: u64,
    /// Whether it may stand for more offsets than it does.
    pub(crate) is_extensible: bool,
    /// Whether it may hold records that could not be looked at.
    pub(crate) is_closed: bool,
    /// From when on the tombstones may go that stay in it, if there are any and that is settled.
    pub(crate) horizon: Option<Timestamp>,
}

/// What becomes of a batch.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It stays as it is.
    Whole,
    /// It stays with this header and body.
    Changed(Box<BatchHeader>, Vec<u8>),
    /// Nothing of it stays but its offsets.
    Nothing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Stays,
    Superseded,
    /// A tombstone whose time is over.
    OldTombstone,
}

impl Cleaner<'_> {
    /// Cleans a batch. If all older records of its keys are gone once that is done, `settled` is from when on its tombstones
    /// may go; `most_bytes` is how long the batch may become by noting that.
    pub(crate) fn clean(
        &self,
        header: &BatchHeader,
        body: &[u8],
        settled: Option<Timestamp>,
        most_bytes: u64,
    ) -> Result<CleanedBatch, MalformedRecord> {
        let mut cleaned = CleanedBatch {
            outcome: Outcome::Whole,
            removed_records: 0,
            removed_tombstones: 0,
            // What a producer sent it is to be told when it sends it again.
            is_extensible: !header.attributes.has_producer(),
            is_closed: false,
            horizon: None,
        };
        let body = match body::content(header, body) {
            Content::Records(body) => body,
            Content::NoRecords => return Ok(CleanedBatch { is_extensible: false, ..cleaned }),
            Content::Closed => return Ok(CleanedBatch { is_extensible: false, is_closed: true, ..cleaned }),
        };
        let mut kept: Option<NewBody> = None;
        let (mut passed, mut tombstones, mut max_create) = (Passed::default(), 0, None);
        for record in body::records(header, &body) {
            let (record, encoded) = record?;
            match self.verdict(header, &record) {
                Verdict::Stays => {
                    tombstones += u64::from(record.value().is_none());
                    max_create = max_create.max(Some(created(header, &record)));
                    match &mut kept {
                        Some(kept) => kept.add_encoded(encoded),
                        None => passed.add(encoded),
                    }
                }
                verdict => {
                    cleaned.removed_records += 1;
                    cleaned.removed_tombstones += u64::from(verdict == Verdict::OldTombstone);
                    kept.get_or_insert_with(|| passed.start_of(&body));
                }
            }
        }
        let mut header = *header;
        if let Some(kept) = &kept {
            if kept.record_count() == 0 && cleaned.is_extensible {
                cleaned.outcome = Outcome::Nothing;
                return Ok(cleaned);
            }
            header.max_create_time = max_create.unwrap_or(header.max_create_time);
            header.record_count = kept.record_count();
        }
        if tombstones > 0 {
            cleaned.horizon = header.delete_horizon();
            if let (None, Some(settled)) = (cleaned.horizon, settled) {
                let plain = kept.as_ref().map_or(&*body, NewBody::plain);
                let (changed, noted) = with_horizon(&header, plain, settled)?;
                let (changed, stored) = noted.finish(&changed, self.zstd_level);
                if u64::from(changed.length_bytes) <= most_bytes.min(MAX_BATCH_BYTES.into()) {
                    cleaned.horizon = Some(settled);
                    cleaned.outcome = Outcome::Changed(Box::new(changed), stored);
                    return Ok(cleaned);
                }
            }
        }
        if let Some(kept) = kept {
            let (changed, stored) = kept.finish(&header, self.zstd_level);
            cleaned.outcome = Outcome::Changed(Box::new(changed), stored);
        }
        Ok(cleaned)
    }

    fn verdict(&self, header: &BatchHeader, record: &RecordView<'_>) -> Verdict {
        // What has no key is the last of none: it is from before the log was compacted.
        let Some(key) = record.key() else { return Verdict::Stays };
        let offset = offset_of(header, record);
        if !self.map.is_empty() && self.map.last(self.map.hash(key)) > Some(offset) {
            return Verdict::Superseded;
        }
        // As a tombstone it must not go before what is older.
        if self.is_complete && ttl::is_expired(record.headers(), header.append_time, self.now) {
            return Verdict::Superseded;
        }
        let is_over = header.delete_horizon().is_some_and(|horizon| horizon <= self.now);
        let is_over = is_over || is_planted(Mistake::CompactionDropsTombstonesEarly);
        if record.value().is_none() && is_over && offset < self.held {
            return Verdict::OldTombstone;
        }
        Verdict::Stays
    }
}

/// The records that were passed while all of them stayed.
#[derive(Default)]
struct Passed {
    bytes: usize,
    ends: u32,
}

impl Passed {
    fn add(&mut self, encoded: &[u8]) {
        self.bytes += encoded.len();
        self.ends += 1;
    }

    fn start_of(&self, body: &[u8]) -> NewBody {
        NewBody::of_encoded(&body[..self.bytes], self.ends)
    }
}

/// Where a record is.
pub(crate) fn offset_of(header: &BatchHeader, record: &RecordView<'_>) -> Offset {
    // Checked when the header was: base and last offset are below 2^63.
    Offset::new(header.base_offset.get() + u64::from(record.offset_delta()))
}

fn created(header: &BatchHeader, record: &RecordView<'_>) -> Timestamp {
    Timestamp::from_millis(header.base_create_time.as_millis().wrapping_add(record.time_delta()))
}

/// The same records in a batch whose base create time is `horizon`.
fn with_horizon(
    header: &BatchHeader,
    body: &[u8],
    horizon: Timestamp,
) -> Result<(BatchHeader, NewBody), MalformedRecord> {
    let mut changed = NewBody::default();
    for record in body::records(header, body) {
        let (record, _) = record?;
        let time_delta = created(header, &record).as_millis().wrapping_sub(horizon.as_millis());
        changed.add(&record, time_delta);
    }
    let header = BatchHeader {
        base_create_time: horizon,
        compatible_attributes: header.compatible_attributes | DELETE_HORIZON,
        ..*header
    };
    Ok((header, changed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogEpoch;
    use crate::format::{BatchAttributes, BatchHeader, Header, RecordFields, RecordIter, encode};

    /// Key, value, create time and offset delta of a record.
    type Fields<'a> = (Option<&'a str>, Option<&'a str>, i64, u32);

    fn batch(base: u64, base_time: i64, records: &[Fields<'_>]) -> (BatchHeader, Vec<u8>) {
        let mut body = Vec::new();
        let headers = [Header { key: "h", value: None }];
        for (key, value, time, delta) in records {
            let fields = RecordFields {
                key: key.map(str::as_bytes),
                value: value.map(str::as_bytes),
                headers: &headers,
            };
            encode(&fields, time - base_time, *delta, &mut body);
        }
        let header = BatchHeader {
            length_bytes: u32::try_from(64 + body.len()).unwrap(),
            body_crc: crc32fast::hash(&body),
            attributes: BatchAttributes::default(),
            compatible_attributes: 0,
            base_offset: Offset::new(base),
            last_offset_delta: records.last().map_or(0, |record| record.3),
            record_count: u32::try_from(records.len()).unwrap(),
            base_create_time: Timestamp::from_millis(base_time),
            max_create_time: records.iter().map(|record| Timestamp::from_millis(record.2)).max().unwrap(),
            append_time: Timestamp::from_millis(500),
            durable_back: 0,
            log_epoch: LogEpoch::FIRST,
            producer: None,
        };
        (header, body)
    }

    fn map(keys: &[(&str, u64)]) -> KeyMap {
        let mut map = KeyMap::new([3, 4], keys.len() as u64, 10_000);
        for (key, offset) in keys {
            let hash = map.hash(key.as_bytes());
            assert!(map.insert(hash, Offset::new(*offset)));
        }
        map
    }

    fn cleaner(map: &KeyMap, now: i64, held: u64) -> Cleaner<'_> {
        Cleaner {
            map,
            now: Timestamp::from_millis(now),
            held: Offset::new(held),
            is_complete: true,
            zstd_level: 3,
        }
    }

    fn read(header: &BatchHeader, body: &[u8]) -> Vec<(u64, String, Option<String>, i64)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert_eq!(header.body_crc, crc32fast::hash(body));
        assert_eq!(header.length_bytes as usize, header.header_bytes() + body.len());
        RecordIter::new(header, body)
            .map(|record| {
                let record = record.unwrap();
                assert_eq!(record.header_count(), 1);
                (
                    offset_of(header, &record).get(),
                    record.key().map_or_else(String::new, text),
                    record.value().map(text),
                    created(header, &record).as_millis(),
                )
            })
            .collect()
    }

    #[test]
    fn superseded_records_go_and_the_rest_stays_as_it_was() {
        let records = [
            (Some("a"), Some("1"), 7, 0),
            (Some("b"), Some("2"), 9, 1),
            (None, Some("3"), 8, 2),
            (Some("c"), Some("4"), 1, 5),
        ];
        let (header, body) = batch(100, 7, &records);
        let map = map(&[("a", 100), ("b", 170), ("c", 180)]);
        let cleaned = cleaner(&map, 1_000, 1_000).clean(&header, &body, None, u64::MAX).unwrap();
        let Outcome::Changed(changed, kept) = cleaned.outcome else { panic!("two records go") };
        assert_eq!((cleaned.removed_records, cleaned.removed_tombstones), (2, 0));
        let kept = read(&changed, &kept);
        assert_eq!(kept, [(100, "a".into(), Some("1".into()), 7), (102, String::new(), Some("3".into()), 8)]);
        assert_eq!(changed.max_create_time, Timestamp::from_millis(8));
        let same = BatchHeader {
            length_bytes: changed.length_bytes,
            body_crc: changed.body_crc,
            record_count: 2,
            max_create_time: changed.max_create_time,
            ..header
        };
        assert_eq!(*changed, same, "nothing else changes");
    }

    #[test]
    fn a_batch_with_nothing_to_remove_stays_whole_and_one_with_nothing_to_keep_goes() {
        let (header, body) = batch(10, 0, &[(Some("a"), Some("1"), 0, 0), (Some("b"), Some("2"), 0, 1)]);
        let clean = |keys: &[(&str, u64)], header: &BatchHeader| {
            cleaner(&map(keys), 1_000, 1_000).clean(header, &body, None, u64::MAX).unwrap()
        };
        assert!(matches!(clean(&[("a", 10), ("b", 11)], &header).outcome, Outcome::Whole));
        assert!(matches!(clean(&[("x", 50)], &header).outcome, Outcome::Whole));
        assert!(matches!(clean(&[("a", 50), ("b", 50)], &header).outcome, Outcome::Nothing));
        // What a producer sent leaves its header behind.
        let sent = BatchHeader {
            attributes: header.attributes.with_producer(),
            length_bytes: header.length_bytes + 16,
            ..header
        };
        match clean(&[("a", 50), ("b", 50)], &sent).outcome {
            Outcome::Changed(header, body) => assert_eq!((header.record_count, body.len()), (0, 0)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_tombstone_gets_its_time_when_that_is_settled_and_goes_when_it_is_over() {
        let (header, body) = batch(10, 3, &[(Some("a"), None, 3, 0), (Some("b"), Some("2"), 4, 1)]);
        let none = map(&[]);
        let unsettled = cleaner(&none, 1_000, 1_000).clean(&header, &body, None, u64::MAX).unwrap();
        assert!(matches!(unsettled.outcome, Outcome::Whole) && unsettled.horizon.is_none());

        let horizon = Timestamp::from_millis(90_000_000);
        let settled = cleaner(&none, 1_000, 1_000).clean(&header, &body, Some(horizon), u64::MAX).unwrap();
        assert_eq!(settled.horizon, Some(horizon));
        let Outcome::Changed(header, body) = settled.outcome else { panic!("it is noted in the batch") };
        assert_eq!(header.delete_horizon(), Some(horizon));
        let both = [(10, "a".into(), None, 3), (11, "b".into(), Some("2".into()), 4)];
        assert_eq!(read(&header, &body), both, "create times stay exact");

        let clean = |now, held| {
            cleaner(&none, now, held).clean(&header, &body, Some(Timestamp::default()), u64::MAX).unwrap()
        };
        assert!(matches!(clean(89_999_999, 1_000).outcome, Outcome::Whole), "K5: its time is not over");
        assert!(matches!(clean(90_000_000, 10).outcome, Outcome::Whole), "K6: a group has not passed it");
        let gone = clean(90_000_000, 11);
        assert_eq!((gone.removed_records, gone.removed_tombstones, gone.horizon), (1, 1, None));
        let Outcome::Changed(header, body) = gone.outcome else { panic!("it goes") };
        assert_eq!(read(&header, &body), both[1..]);
    }

    #[test]
    fn a_horizon_that_does_not_fit_is_not_noted() {
        let (header, body) = batch(10, 0, &[(Some("a"), None, 0, 0)]);
        let none = map(&[]);
        let horizon = Some(Timestamp::from_millis(1 << 40));
        let most = u64::from(header.length_bytes) + 4;
        let cleaned = cleaner(&none, 0, 0).clean(&header, &body, horizon, most).unwrap();
        assert!(matches!(cleaned.outcome, Outcome::Whole) && cleaned.horizon.is_none());
    }

    #[test]
    fn what_cannot_be_looked_into_stays() {
        let (header, body) = batch(10, 0, &[(Some("a"), Some("1"), 0, 0)]);
        let map = map(&[("a", 50)]);
        let plain = BatchAttributes::default();
        for (attributes, is_closed) in [
            (plain.with_opaque(), false),
            (plain.with_control(), false),
            (plain.with_encrypted(), true),
            (plain.with_transactional(), true),
            // A body that is none.
            (plain.with_compression(crate::Compression::Lz4), true),
        ] {
            let header = BatchHeader { attributes, ..header };
            let cleaned = cleaner(&map, 0, 0).clean(&header, &body, None, u64::MAX).unwrap();
            assert!(matches!(cleaned.outcome, Outcome::Whole));
            assert_eq!((cleaned.is_extensible, cleaned.is_closed), (false, is_closed));
        }
    }
}
