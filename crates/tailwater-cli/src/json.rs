//! A record as one JSON object a line: what `consume --json` and `export` print is what `produce --json` and `import` read.
//!
//! | Field | Printed | Read |
//! |---|---|---|
//! | `topic`, `offset`, `appended` | always | ignored: where and when it is appended is seen then |
//! | `partition` | always, a number | optional: the partition it goes to; by its key if absent or null |
//! | `timestamp` | always, milliseconds since 1970 | optional: that, or RFC 3339; now if absent or null |
//! | `key` | text, or null if there is none | optional |
//! | `key_base64` | instead of `key`, if it is not UTF-8 | the same |
//! | `value` | text, or null for a tombstone | this or `value_base64` is required; null needs a key |
//! | `value_base64` | instead of `value`, if it is not UTF-8 | the same |
//! | `headers` | always, a list of `{"key": ..., "value": ...}` with text or null, or `value_base64` | optional |
//!
//! Any other field is an error, so that a misspelt one is not lost. Base64 is the standard alphabet with padding.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use tailwater::{Header, PartitionId, Timestamp};

use crate::format::{Fields, put};
use crate::time::{When, parse_when};

/// A record to produce, as a JSON object says it. Text without escapes is borrowed from the line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct JsonRecord<'l> {
    /// The key, if there is one.
    pub key: Option<Cow<'l, [u8]>>,
    /// The value; `None` for a tombstone, which has a key then.
    pub value: Option<Cow<'l, [u8]>>,
    /// The headers, in order.
    pub headers: Vec<JsonHeader<'l>>,
    /// The partition, if it is given.
    pub partition: Option<PartitionId>,
    /// The create time, if it is given.
    pub timestamp: Option<Timestamp>,
}

/// A header's name and its value.
pub type JsonHeader<'l> = (Cow<'l, str>, Option<Cow<'l, [u8]>>);

/// Why a line is no record.
#[derive(Debug)]
pub enum JsonError {
    /// It does not begin as an object does.
    NotAnObject,
    /// No JSON object, or one with other fields.
    Syntax(serde_json::Error),
    /// A field and its `_base64` variant are both there.
    Both {
        /// The field without the suffix.
        field: &'static str,
    },
    /// A field does not hold base64.
    NotBase64 {
        /// The field.
        field: &'static str,
    },
    /// Neither `value` nor `value_base64` is there.
    NoValue,
    /// The value is null, and there is no key.
    TombstoneWithoutKey,
    /// The timestamp is neither a number nor RFC 3339.
    Timestamp,
    /// The partition is 2^31 or more.
    Partition,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonError::NotAnObject => {
                f.write_str("it is no JSON record: a record is written as {\"value\": ...}")
            }
            JsonError::Syntax(error) => write!(f, "it is no JSON record: {error}"),
            JsonError::Both { field } => write!(f, "`{field}` and `{field}_base64` exclude each other"),
            JsonError::NotBase64 { field } => write!(f, "`{field}` is not base64 with padding"),
            JsonError::NoValue => f.write_str("it has no `value`: write null for a tombstone"),
            JsonError::TombstoneWithoutKey => f.write_str("a null `value` is a tombstone, and needs a `key`"),
            JsonError::Timestamp => {
                f.write_str("`timestamp` must be milliseconds since 1970, or as 2026-11-22T18:30:00Z")
            }
            JsonError::Partition => f.write_str("`partition` must be below 2147483648"),
        }
    }
}

impl std::error::Error for JsonError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'l> {
    #[serde(default, borrow)]
    key: Option<Text<'l>>,
    #[serde(default, borrow)]
    key_base64: Option<Text<'l>>,
    /// Absent and null are not the same.
    #[serde(default, borrow, deserialize_with = "present")]
    value: Option<Option<Text<'l>>>,
    #[serde(default, borrow)]
    value_base64: Option<Text<'l>>,
    #[serde(default, borrow)]
    headers: Option<Vec<WireHeader<'l>>>,
    #[serde(default)]
    partition: Option<u32>,
    #[serde(default)]
    timestamp: Option<WireTime>,
    #[serde(default, rename = "topic")]
    _topic: serde::de::IgnoredAny,
    #[serde(default, rename = "offset")]
    _offset: serde::de::IgnoredAny,
    #[serde(default, rename = "appended")]
    _appended: serde::de::IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireHeader<'l> {
    #[serde(borrow)]
    key: Text<'l>,
    #[serde(default, borrow)]
    value: Option<Text<'l>>,
    #[serde(default, borrow)]
    value_base64: Option<Text<'l>>,
}

/// In a type of its own: `serde` does not borrow what is in an `Option` otherwise.
#[derive(Deserialize)]
struct Text<'l>(#[serde(borrow)] Cow<'l, str>);

impl<'l> Text<'l> {
    fn into_bytes(self) -> Cow<'l, [u8]> {
        match self.0 {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        }
    }
}

/// `None` for a text that is no time.
struct WireTime(Option<Timestamp>);

impl<'de> Deserialize<'de> for WireTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WireTimeVisitor)
    }
}

struct WireTimeVisitor;

impl Visitor<'_> for WireTimeVisitor {
    type Value = WireTime;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("milliseconds since 1970, or a time such as \"2026-11-22T18:30:00Z\"")
    }

    fn visit_i64<E: serde::de::Error>(self, ms: i64) -> Result<WireTime, E> {
        Ok(WireTime(Some(Timestamp::from_millis(ms))))
    }

    fn visit_u64<E: serde::de::Error>(self, ms: u64) -> Result<WireTime, E> {
        let ms = i64::try_from(ms).map_err(|_| E::invalid_value(Unexpected::Unsigned(ms), &self))?;
        self.visit_i64(ms)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<WireTime, E> {
        Ok(WireTime(match parse_when(text) {
            Ok(When::At(time)) => Some(time),
            _ => None,
        }))
    }
}

fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// Reads a record.
///
/// # Errors
///
/// What is wrong with it.
///
/// # Examples
///
/// ```
/// let record = tailwater_cli::json::parse_record(br#"{"key":"table 4","value_base64":"AP8="}"#).unwrap();
/// assert_eq!(record.key.as_deref(), Some(&b"table 4"[..]));
/// assert_eq!(record.value.as_deref(), Some(&[0, 255][..]));
/// ```
pub fn parse_record(line: &[u8]) -> Result<JsonRecord<'_>, JsonError> {
    // Serde would take a list of the fields' values too.
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err(JsonError::NotAnObject);
    }
    let wire: Wire<'_> = serde_json::from_slice(line).map_err(JsonError::Syntax)?;
    let key = either("key", "key_base64", wire.key, wire.key_base64)?;
    let value = match (wire.value, wire.value_base64) {
        (None, None) => return Err(JsonError::NoValue),
        (Some(Some(_)), Some(_)) => return Err(JsonError::Both { field: "value" }),
        (value, encoded) => either("value", "value_base64", value.flatten(), encoded)?,
    };
    if value.is_none() && key.is_none() {
        return Err(JsonError::TombstoneWithoutKey);
    }
    let headers = wire.headers.unwrap_or_default().into_iter().map(|header| {
        let value = either("value", "value_base64", header.value, header.value_base64)?;
        Ok((header.key.0, value))
    });
    let timestamp = match wire.timestamp {
        None => None,
        Some(WireTime(time)) => Some(time.ok_or(JsonError::Timestamp)?),
    };
    let partition = match wire.partition {
        None => None,
        Some(number) => Some(PartitionId::try_new(number).ok_or(JsonError::Partition)?),
    };
    Ok(JsonRecord { key, value, headers: headers.collect::<Result<_, _>>()?, partition, timestamp })
}

fn either<'l>(
    field: &'static str,
    encoded_field: &'static str,
    text: Option<Text<'l>>,
    encoded: Option<Text<'l>>,
) -> Result<Option<Cow<'l, [u8]>>, JsonError> {
    match (text, encoded) {
        (Some(_), Some(_)) => Err(JsonError::Both { field }),
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(encoded)) => {
            let decoded = STANDARD.decode(encoded.0.as_bytes());
            decoded
                .map(|bytes| Some(Cow::Owned(bytes)))
                .map_err(|_| JsonError::NotBase64 { field: encoded_field })
        }
        (None, None) => Ok(None),
    }
}

/// Appends a record to `out`, as one line without its end.
pub fn write_record<'h, I>(record: Fields<'_, impl Fn() -> I>, out: &mut Vec<u8>)
where
    I: Iterator<Item = Header<'h>>,
{
    out.extend_from_slice(b"{\"topic\":");
    put_text(out, record.topic);
    put(
        out,
        format_args!(
            ",\"partition\":{},\"offset\":{},\"timestamp\":{},\"appended\":{}",
            record.partition,
            record.offset,
            record.created_at.as_millis(),
            record.appended_at.as_millis()
        ),
    );
    put_bytes(out, "key", record.key);
    put_bytes(out, "value", record.value);
    out.extend_from_slice(b",\"headers\":[");
    for (index, header) in (record.headers)().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"key\":");
        put_text(out, header.key);
        put_bytes(out, "value", header.value);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string in memory has a JSON form");
}

fn put_bytes(out: &mut Vec<u8>, field: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => put(out, format_args!(",\"{field}\":null")),
        Some((_, Ok(text))) => {
            put(out, format_args!(",\"{field}\":"));
            put_text(out, text);
        }
        Some((bytes, Err(_))) => {
            put(out, format_args!(",\"{field}_base64\":\"{}\"", STANDARD.encode(bytes)));
        }
    }
}

#[cfg(test)]
mod tests {
    use tailwater::Offset;

    use super::*;

    fn fields<'r>(
        key: Option<&'r [u8]>,
        value: Option<&'r [u8]>,
        headers: &'r [Header<'r>],
    ) -> Fields<'r, impl Fn() -> std::iter::Copied<std::slice::Iter<'r, Header<'r>>>> {
        Fields {
            topic: "orders",
            partition: PartitionId::new(3),
            offset: Offset::new(17),
            created_at: Timestamp::from_millis(1000),
            appended_at: Timestamp::from_millis(2000),
            key,
            value,
            headers: move || headers.iter().copied(),
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        let headers = [
            Header { key: "a", value: Some(b"1") },
            Header { key: "a", value: None },
            Header { key: "\"", value: Some(b"\xff\0") },
        ];
        for (key, value) in [
            (None, Some(&b"two \"espressos\"\n\0"[..])),
            (Some(&b"k"[..]), None),
            (Some(&b"\xff"[..]), Some(&b"\x80\x81"[..])),
            (Some(&b""[..]), Some(&b""[..])),
        ] {
            let mut line = Vec::new();
            write_record(fields(key, value, &headers), &mut line);
            assert!(!line.contains(&b'\n'));
            let record = parse_record(&line).unwrap();
            assert_eq!((record.key.as_deref(), record.value.as_deref()), (key, value));
            assert_eq!(record.partition, Some(PartitionId::new(3)));
            assert_eq!(record.timestamp, Some(Timestamp::from_millis(1000)));
            let read: Vec<_> = record.headers.iter().map(|(key, value)| (&**key, value.as_deref())).collect();
            let given: Vec<_> = headers.iter().map(|header| (header.key, header.value)).collect();
            assert_eq!(read, given);
        }
    }

    #[test]
    fn the_printed_form_is_fixed() {
        let mut line = Vec::new();
        write_record(fields(None, Some(b"x"), &[Header { key: "h", value: Some(b"\xff") }]), &mut line);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"topic\":\"orders\",\"partition\":3,\"offset\":17,\"timestamp\":1000,\"appended\":2000,\"key\":null,\
             \"value\":\"x\",\"headers\":[{\"key\":\"h\",\"value_base64\":\"/w==\"}]}"
        );
    }

    #[test]
    fn little_is_enough() {
        let record = parse_record(br#"{"value":"x"}"#).unwrap();
        assert_eq!(record, JsonRecord { value: Some(b"x"[..].into()), ..JsonRecord::default() });
        let record =
            parse_record(br#" {"timestamp":"1970-01-01T00:00:01Z","key":"k","value":null} "#).unwrap();
        assert_eq!(record.timestamp, Some(Timestamp::from_millis(1000)));
        assert_eq!(record.value, None);
    }

    #[test]
    fn what_is_no_record_is_told_why() {
        let text = |line: &str| parse_record(line.as_bytes()).unwrap_err().to_string();
        assert!(text("two").contains("no JSON record"));
        assert!(text("[]").contains("no JSON record"));
        assert!(text(r#"{"vaule":"x"}"#).contains("unknown field `vaule`"));
        assert!(text(r#"{"value":7}"#).contains("expected a string"));
        assert!(text(r#"{"value":"x"} {"#).contains("trailing"));
        assert!(text("{}").contains("no `value`"));
        assert!(text(r#"{"value":null}"#).contains("needs a `key`"));
        assert!(text(r#"{"value":"x","value_base64":"eA=="}"#).contains("exclude each other"));
        assert!(text(r#"{"value_base64":"x"}"#).contains("`value_base64` is not base64"));
        assert!(text(r#"{"value":"x","key":"a","key_base64":"eA=="}"#).contains("exclude each other"));
        assert!(text(r#"{"value":"x","timestamp":"2h"}"#).contains("`timestamp` must be"));
        assert!(text(r#"{"value":"x","partition":2147483648}"#).contains("`partition` must be"));
        assert!(text(r#"{"value":"x","headers":[{"value":"x"}]}"#).contains("missing field `key`"));
        assert!(parse_record(b"{\"value\":\"\xff\"}").is_err());
    }
}
