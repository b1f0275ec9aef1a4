//! Records in the body of a batch: `docs/format.md`, section "Record".

use super::BatchHeader;
use super::varint;

/// A header of a record: a name and a value that may be null.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Header<'a> {
    /// The name. Names may repeat.
    pub key: &'a str,
    /// The value.
    pub value: Option<&'a [u8]>,
}

/// What a record carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RecordFields<'a> {
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: &'a [Header<'a>],
}

/// No attribute of a record is defined yet.
const ATTRIBUTES: u8 = 0;

/// Size of the encoded record in bytes, its length prefix included.
#[must_use]
pub fn encoded_bytes(fields: &RecordFields<'_>, time_delta: i64, offset_delta: u32) -> usize {
    let content = content_bytes(fields, time_delta, offset_delta);
    varint::length(content as u64) + content
}

fn content_bytes(fields: &RecordFields<'_>, time_delta: i64, offset_delta: u32) -> usize {
    let mut size = size_of_val(&ATTRIBUTES)
        + varint::length(varint::zigzag(time_delta))
        + varint::length(offset_delta.into())
        + nullable_bytes(fields.key)
        + nullable_bytes(fields.value)
        + varint::length(fields.headers.len() as u64);
    for header in fields.headers {
        size += varint::length(header.key.len() as u64) + header.key.len() + nullable_bytes(header.value);
    }
    size
}

fn nullable_bytes(bytes: Option<&[u8]>) -> usize {
    varint::length(nullable_prefix(bytes)) + bytes.map_or(0, <[u8]>::len)
}

/// Appends the encoded record to `out`.
#[inline]
pub fn encode(fields: &RecordFields<'_>, time_delta: i64, offset_delta: u32, out: &mut Vec<u8>) {
    let _ = encode_within(fields, time_delta, offset_delta, usize::MAX, out);
}

/// Appends the encoded record to `out` if that is at most `most_bytes` long with it. Returns whether it is.
#[inline]
pub(crate) fn encode_within(
    fields: &RecordFields<'_>,
    time_delta: i64,
    offset_delta: u32,
    most_bytes: usize,
    out: &mut Vec<u8>,
) -> bool {
    let (key, value) = (fields.key.unwrap_or_default(), fields.value.unwrap_or_default());
    let time = varint::zigzag(time_delta);
    let all = time | u64::from(offset_delta) | key.len() as u64 | value.len() as u64;
    if all >= Numbers::END / 4 || !fields.headers.is_empty() {
        return encode_any_within(fields, time_delta, offset_delta, most_bytes, out);
    }
    let mut front = Numbers::default();
    front.put(ATTRIBUTES.into());
    front.put(time);
    front.put(offset_delta.into());
    front.put(nullable_prefix(fields.key));
    let mut middle = Numbers::default();
    middle.put(nullable_prefix(fields.value));
    let content = front.count + key.len() + middle.count + value.len() + 1;
    front.put_first(content as u64);
    let size = front.count + key.len() + middle.count + value.len() + 1;
    if size > most_bytes.saturating_sub(out.len()) {
        return false;
    }
    out.reserve(size + size_of::<Numbers>());
    front.append_to(out);
    if !key.is_empty() {
        out.extend_from_slice(key);
    }
    middle.append_to(out);
    out.extend_from_slice(value);
    out.push(0);
    true
}

/// As [`encode_within`], for a record with headers or with large numbers.
#[cold]
fn encode_any_within(
    fields: &RecordFields<'_>,
    time_delta: i64,
    offset_delta: u32,
    most_bytes: usize,
    out: &mut Vec<u8>,
) -> bool {
    let content = content_bytes(fields, time_delta, offset_delta);
    let size = varint::length(content as u64) + content;
    if size > most_bytes.saturating_sub(out.len()) {
        return false;
    }
    out.reserve(size);
    put_number(content as u64, out);
    out.push(ATTRIBUTES);
    put_number(varint::zigzag(time_delta), out);
    put_number(offset_delta.into(), out);
    put_number(nullable_prefix(fields.key), out);
    out.extend_from_slice(fields.key.unwrap_or_default());
    put_number(nullable_prefix(fields.value), out);
    out.extend_from_slice(fields.value.unwrap_or_default());
    put_number(fields.headers.len() as u64, out);
    for header in fields.headers {
        put_number(header.key.len() as u64, out);
        out.extend_from_slice(header.key.as_bytes());
        put_number(nullable_prefix(header.value), out);
        out.extend_from_slice(header.value.unwrap_or_default());
    }
    true
}

fn put_number(number: u64, out: &mut Vec<u8>) {
    let mut bytes = [0; varint::MAX_BYTES];
    let count = varint::write(number, &mut bytes);
    out.extend_from_slice(&bytes[..count]);
}

/// What stands before bytes that may be null: 0 if they are, or one more than their count.
#[inline]
fn nullable_prefix(bytes: Option<&[u8]>) -> u64 {
    bytes.map_or(0, |bytes| bytes.len() as u64 + 1)
}

/// Up to five numbers below [`Numbers::END`] on their way into a body, in a register: written byte by byte and then read
/// as a whole they would wait for the processor's stores.
#[derive(Clone, Copy, Default)]
struct Numbers {
    bytes: u128,
    count: usize,
}

impl Numbers {
    /// Numbers below it take three bytes at most.
    const END: u64 = 1 << 21;

    #[inline(always)]
    fn put(&mut self, number: u64) {
        let (bytes, count) = Self::encoded(number);
        self.bytes |= bytes << (8 * self.count);
        self.count += count;
    }

    #[inline(always)]
    fn put_first(&mut self, number: u64) {
        let (bytes, count) = Self::encoded(number);
        self.bytes = self.bytes << (8 * count) | bytes;
        self.count += count;
    }

    #[inline(always)]
    fn encoded(number: u64) -> (u128, usize) {
        debug_assert!(number < Self::END, "{number} takes three bytes at most");
        if number < 0x80 {
            (number.into(), 1)
        } else if number < 0x4000 {
            ((number & 0x7f | 0x80 | (number >> 7) << 8).into(), 2)
        } else {
            ((number & 0x7f | 0x80 | (number >> 7 & 0x7f | 0x80) << 8 | (number >> 14) << 16).into(), 3)
        }
    }

    #[inline(always)]
    fn append_to(self, out: &mut Vec<u8>) {
        // A copy of fixed size is one instruction, where one of variable size is a call; what is too much is cut off.
        let end = out.len() + self.count;
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.truncate(end);
    }
}

/// A record in a body, borrowed from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordView<'a> {
    time_delta: i64,
    offset_delta: u32,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    header_count: u32,
    headers: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// Milliseconds from the base create time of the batch, wrapping.
    #[must_use]
    pub fn time_delta(&self) -> i64 {
        self.time_delta
    }

    /// Offsets from the base offset of the batch.
    #[must_use]
    pub fn offset_delta(&self) -> u32 {
        self.offset_delta
    }

    /// The key, if there is one.
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// The value; `None` for a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// How many headers there are.
    #[must_use]
    pub fn header_count(&self) -> u32 {
        self.header_count
    }

    /// The headers, in order.
    #[must_use]
    pub fn headers(&self) -> HeaderIter<'a> {
        HeaderIter { bytes: self.headers, left: self.header_count }
    }
}

/// The headers of a record.
#[derive(Clone, Debug)]
pub struct HeaderIter<'a> {
    bytes: &'a [u8],
    left: u32,
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        self.left = self.left.checked_sub(1)?;
        // The record's decoding has walked over these bytes already, so this finds what it found.
        read_header(&mut self.bytes)
    }
}

/// A record that does not follow the format, in a body whose checksum may be right all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MalformedRecord {
    /// Which record of the batch, from 0.
    pub index: u32,
}

/// Walks over the records of an uncompressed body, checking each whole.
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    bytes: &'a [u8],
    index: u32,
    count: u32,
    /// The least offset delta that the next record may have.
    least_delta: u32,
    last_delta: u32,
}

impl<'a> RecordIter<'a> {
    /// The records of `body`, which is that of the batch with `header`.
    #[must_use]
    pub fn new(header: &BatchHeader, body: &'a [u8]) -> Self {
        Self {
            bytes: body,
            index: 0,
            count: header.record_count,
            least_delta: 0,
            last_delta: header.last_offset_delta,
        }
    }

    /// No records.
    pub(crate) fn empty() -> Self {
        Self { bytes: &[], index: 0, count: 0, least_delta: 0, last_delta: 0 }
    }

    /// How many bytes of the body lie behind the records that were read.
    pub(crate) fn bytes_left(&self) -> usize {
        self.bytes.len()
    }

    /// Walks over all that are left. Returns whether any of them has headers.
    ///
    /// # Errors
    ///
    /// The first that does not follow the format.
    pub(crate) fn check(mut self) -> Result<bool, MalformedRecord> {
        let mut header_counts = 0;
        while self.index < self.count
            && let Some(view) = self.read()
        {
            header_counts |= view.header_count;
            self.index += 1;
        }
        self.end().map_or(Ok(header_counts > 0), Err)
    }

    /// The next record; `None` if it does not follow the format.
    #[inline(always)]
    fn read(&mut self) -> Option<RecordView<'a>> {
        let length = varint::read_u32(&mut self.bytes)? as usize;
        let (mut content, rest) = self.bytes.split_at_checked(length)?;
        let content = &mut content;
        let (attributes, after) = content.split_first()?;
        if *attributes != ATTRIBUTES {
            return None;
        }
        *content = after;
        let time_delta = varint::unzigzag(varint::read(content)?);
        let offset_delta = varint::read_u32(content)?;
        if offset_delta < self.least_delta || offset_delta > self.last_delta {
            return None;
        }
        let key = read_nullable(content)?;
        let value = read_nullable(content)?;
        let header_count = varint::read_u32(content)?;
        let headers = *content;
        if header_count > 0 {
            skip_headers(header_count, content)?;
        }
        if !content.is_empty() {
            return None;
        }
        self.least_delta = offset_delta + 1;
        self.bytes = rest;
        Some(RecordView { time_delta, offset_delta, key, value, header_count, headers })
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordView<'a>, MalformedRecord>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.index < self.count
            && let Some(view) = self.read()
        {
            self.index += 1;
            return Some(Ok(view));
        }
        self.end().map(Err)
    }
}

impl RecordIter<'_> {
    /// What comes behind the good records: nothing, or a record, or bytes behind the last one, that should not be there.
    #[cold]
    fn end(&mut self) -> Option<MalformedRecord> {
        let index = self.index;
        let is_whole = index == self.count && self.bytes.is_empty();
        self.index = self.count;
        self.bytes = &[];
        (!is_whole).then_some(MalformedRecord { index })
    }
}

#[cold]
fn skip_headers(count: u32, bytes: &mut &[u8]) -> Option<()> {
    (0..count).try_for_each(|_| read_header(bytes).map(drop))
}

#[inline(always)]
fn read_nullable<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match varint::read(bytes)? {
        0 => Some(None),
        length => take(bytes, length - 1).map(Some),
    }
}

fn read_header<'a>(bytes: &mut &'a [u8]) -> Option<Header<'a>> {
    let length = varint::read(bytes)?;
    let key = std::str::from_utf8(take(bytes, length)?).ok()?;
    let value = read_nullable(bytes)?;
    Some(Header { key, value })
}

#[inline(always)]
fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::BatchAttributes;
    use crate::{LogEpoch, Offset, Timestamp};

    fn header(record_count: u32, last_offset_delta: u32) -> BatchHeader {
        BatchHeader {
            length_bytes: 64,
            body_crc: 0,
            attributes: BatchAttributes::default(),
            compatible_attributes: 0,
            base_offset: Offset::ZERO,
            last_offset_delta,
            record_count,
            base_create_time: Timestamp::default(),
            max_create_time: Timestamp::default(),
            append_time: Timestamp::default(),
            durable_back: 0,
            log_epoch: LogEpoch::FIRST,
            producer: None,
        }
    }

    #[test]
    fn null_and_empty_stay_apart() {
        let headers = [Header { key: "a", value: None }, Header { key: "", value: Some(b"") }];
        let mut body = Vec::new();
        encode(&RecordFields { key: None, value: Some(b""), headers: &[] }, 0, 0, &mut body);
        encode(&RecordFields { key: Some(b""), value: None, headers: &headers }, -1, 5, &mut body);
        let records: Vec<_> = RecordIter::new(&header(2, 5), &body).map(Result::unwrap).collect();
        assert_eq!((records[0].key(), records[0].value()), (None, Some(&b""[..])));
        assert_eq!((records[1].key(), records[1].value()), (Some(&b""[..]), None));
        assert_eq!(records[1].headers().collect::<Vec<_>>(), headers);
        assert_eq!((records[1].time_delta(), records[1].offset_delta()), (-1, 5));
    }

    #[test]
    fn offsets_must_rise_and_stay_within_the_batch() {
        let mut body = Vec::new();
        encode(&RecordFields::default(), 0, 1, &mut body);
        let one = body.clone();
        encode(&RecordFields::default(), 0, 1, &mut body);
        let errors = |header: &BatchHeader, body| {
            RecordIter::new(header, body).filter_map(Result::err).collect::<Vec<_>>()
        };
        assert_eq!(errors(&header(2, 1), &body), [MalformedRecord { index: 1 }]);
        assert_eq!(errors(&header(1, 0), &one), [MalformedRecord { index: 0 }]);
        assert_eq!(errors(&header(1, 1), &one), []);
        assert_eq!(
            errors(&header(1, 1), &body),
            [MalformedRecord { index: 1 }],
            "bytes behind the last record"
        );
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            records in proptest::collection::vec(
                (
                    any::<i64>(),
                    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
                    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20_000)),
                    proptest::collection::vec(
                        (".{0,10}", proptest::option::of(proptest::collection::vec(any::<u8>(), 0..10))), 0..4),
                ), 1..6),
        ) {
            let mut body = Vec::new();
            for ((time, key, value, headers), delta) in records.iter().zip(0..) {
                let headers: Vec<_> =
                    headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
                let fields = RecordFields { key: key.as_deref(), value: value.as_deref(), headers: &headers };
                let before = body.len();
                encode(&fields, *time, delta, &mut body);
                prop_assert_eq!(body.len() - before, encoded_bytes(&fields, *time, delta));
            }
            let count = u32::try_from(records.len()).unwrap();
            let decoded: Vec<_> = RecordIter::new(&header(count, count - 1), &body).collect();
            prop_assert_eq!(decoded.len(), records.len());
            for (decoded, (time, key, value, headers)) in decoded.iter().zip(&records) {
                let decoded = decoded.unwrap();
                prop_assert_eq!(decoded.time_delta(), *time);
                prop_assert_eq!(decoded.key(), key.as_deref());
                prop_assert_eq!(decoded.value(), value.as_deref());
                let found: Vec<_> = decoded.headers().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect();
                prop_assert_eq!(&found, headers);
            }
        }

        #[test]
        fn the_short_way_and_the_long_way_of_encoding_make_the_same_bytes(
            time in prop_oneof![-70i64..70, -9_000i64..9_000, any::<i64>()],
            delta in prop_oneof![0u32..200, 16_000u32..17_000, 0u32..4_000_000],
            key in proptest::option::of(prop_oneof![Just(0usize), 1usize..300, 16_000usize..17_000]),
            value in proptest::option::of(prop_oneof![Just(0usize), 1usize..300, 500_000usize..600_000]),
            short_by in 0usize..3,
        ) {
            let (key, value) = (key.map(|length| vec![b'k'; length]), value.map(|length| vec![b'v'; length]));
            let fields = RecordFields { key: key.as_deref(), value: value.as_deref(), headers: &[] };
            let (mut out, mut expected) = (vec![1, 2, 3], vec![1, 2, 3]);
            prop_assert!(encode_any_within(&fields, time, delta, usize::MAX, &mut expected));
            let most_bytes = expected.len() - short_by;
            prop_assert_eq!(encode_within(&fields, time, delta, most_bytes, &mut out), short_by == 0);
            let is_right = out == if short_by == 0 { expected } else { vec![1, 2, 3] };
            prop_assert!(is_right);
        }

        #[test]
        fn any_body_is_walked_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), count in 0..50u32, delta in 0..100u32,
        ) {
            let seen = RecordIter::new(&header(count, delta), &bytes).count();
            prop_assert!(seen <= count as usize + 1);
        }
    }
}
