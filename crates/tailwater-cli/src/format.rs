//! How `consume` prints a record: kcat's tokens.
//!
//! | Token | Prints |
//! |---|---|
//! | `%t` | topic |
//! | `%p` | partition |
//! | `%o` | offset |
//! | `%k` | key; nothing if there is none |
//! | `%K` | length of the key in bytes; -1 if there is none |
//! | `%s` | value; nothing for a tombstone |
//! | `%S` | length of the value in bytes; -1 for a tombstone |
//! | `%T` | create time, in milliseconds since 1970 |
//! | `%h` | headers, as `key=value,key=value`; `key=NULL` without a value |
//! | `%%` | a percent sign |
//! | `\n` `\t` `\r` `\\` `\xNN` | that byte |

use std::fmt;
use std::io::Write;

use tailwater::{Header, Offset, PartitionId, Timestamp};

use crate::escapes::{EscapeError, escape};

/// A record as it is printed.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'r, H> {
    /// Its topic.
    pub topic: &'r str,
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was appended.
    pub appended_at: Timestamp,
    /// Its key, if it has one.
    pub key: Option<&'r [u8]>,
    /// Its value; `None` for a tombstone.
    pub value: Option<&'r [u8]>,
    /// Gives its headers, in order.
    pub headers: H,
}

/// How a record is printed.
///
/// # Examples
///
/// ```
/// use tailwater::{Offset, PartitionId, Timestamp};
/// use tailwater_cli::format::{Fields, Format};
///
/// let format: Format = r"%t-%p@%o: %s\n".parse().unwrap();
/// let record = Fields {
///     topic: "orders",
///     partition: PartitionId::ZERO,
///     offset: Offset::new(17),
///     created_at: Timestamp::default(),
///     appended_at: Timestamp::default(),
///     key: None,
///     value: Some(b"two espressos"),
///     headers: std::iter::empty,
/// };
/// let mut out = Vec::new();
/// format.write(record, &mut out);
/// assert_eq!(out, b"orders-0@17: two espressos\n");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Format {
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Literal(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key,
    KeyLength,
    Value,
    ValueLength,
    CreateTime,
    Headers,
}

/// Why a text is no format.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FormatError {
    /// There is no such token.
    UnknownToken {
        /// The character behind the percent sign; `None` if there is none.
        found: Option<char>,
    },
    /// An escape is wrong.
    Escape(EscapeError),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormatError::UnknownToken { found: Some(found) } => {
                write!(f, "there is no token `%{found}`: there are %t %p %o %k %K %s %S %T %h and %%")
            }
            FormatError::UnknownToken { found: None } => {
                f.write_str("a percent sign at the end: write %% for a percent sign")
            }
            FormatError::Escape(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FormatError {}

impl Format {
    /// The value and then `end`: what is printed if nothing else is asked for.
    #[must_use]
    pub fn value_and(end: u8) -> Self {
        Self { parts: vec![Part::Value, Part::Literal(vec![end])] }
    }

    /// Appends the printed record to `out`.
    pub fn write<'h, I>(&self, record: Fields<'_, impl Fn() -> I>, out: &mut Vec<u8>)
    where
        I: Iterator<Item = Header<'h>>,
    {
        for part in &self.parts {
            match part {
                Part::Literal(bytes) => out.extend_from_slice(bytes),
                Part::Topic => out.extend_from_slice(record.topic.as_bytes()),
                Part::Partition => put(out, record.partition),
                Part::Offset => put(out, record.offset),
                Part::Key => out.extend_from_slice(record.key.unwrap_or_default()),
                Part::KeyLength => put_length(out, record.key),
                Part::Value => out.extend_from_slice(record.value.unwrap_or_default()),
                Part::ValueLength => put_length(out, record.value),
                Part::CreateTime => put(out, record.created_at.as_millis()),
                Part::Headers => put_headers(out, (record.headers)()),
            }
        }
    }

    fn push_byte(&mut self, byte: u8) {
        match self.parts.last_mut() {
            Some(Part::Literal(bytes)) => bytes.push(byte),
            _ => self.parts.push(Part::Literal(vec![byte])),
        }
    }
}

/// Appends a value as it is displayed.
pub(crate) fn put(out: &mut Vec<u8>, shown: impl fmt::Display) {
    write!(out, "{shown}").expect("writing to memory does not fail");
}

fn put_length(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => put(out, bytes.len()),
        None => out.extend_from_slice(b"-1"),
    }
}

fn put_headers<'h>(out: &mut Vec<u8>, headers: impl Iterator<Item = Header<'h>>) {
    for (index, header) in headers.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(header.key.as_bytes());
        out.push(b'=');
        out.extend_from_slice(header.value.unwrap_or(b"NULL"));
    }
}

impl std::str::FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let mut format = Self { parts: Vec::new() };
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            rest = &rest[first.len_utf8()..];
            match first {
                '\\' => {
                    let (byte, after) = escape(rest).map_err(FormatError::Escape)?;
                    format.push_byte(byte);
                    rest = after;
                }
                '%' => {
                    let found = rest.chars().next();
                    match found {
                        Some('%') => format.push_byte(b'%'),
                        Some('t') => format.parts.push(Part::Topic),
                        Some('p') => format.parts.push(Part::Partition),
                        Some('o') => format.parts.push(Part::Offset),
                        Some('k') => format.parts.push(Part::Key),
                        Some('K') => format.parts.push(Part::KeyLength),
                        Some('s') => format.parts.push(Part::Value),
                        Some('S') => format.parts.push(Part::ValueLength),
                        Some('T') => format.parts.push(Part::CreateTime),
                        Some('h') => format.parts.push(Part::Headers),
                        found => return Err(FormatError::UnknownToken { found }),
                    }
                    rest = &rest[1..];
                }
                other => other.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| format.push_byte(byte)),
            }
        }
        Ok(format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(format: &str, key: Option<&[u8]>, value: Option<&[u8]>) -> String {
        let headers = [Header { key: "a", value: Some(b"1") }, Header { key: "b", value: None }];
        let record = Fields {
            topic: "orders",
            partition: PartitionId::new(3),
            offset: Offset::new(17),
            created_at: Timestamp::from_millis(-5),
            appended_at: Timestamp::from_millis(6),
            key,
            value,
            headers: || headers.into_iter(),
        };
        let mut out = Vec::new();
        format.parse::<Format>().unwrap().write(record, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tokens_print_their_part_of_the_record() {
        let all = r"%t %p %o [%k] %K [%s] %S %T %h %%\n";
        assert_eq!(print(all, Some(b"k"), Some(b"two")), "orders 3 17 [k] 1 [two] 3 -5 a=1,b=NULL %\n");
        assert_eq!(print(all, None, None), "orders 3 17 [] -1 [] -1 -5 a=1,b=NULL %\n");
        assert_eq!(
            print(r"\x41%%\t\\caf\u{e9}".replace(r"\u{e9}", "\u{e9}").as_str(), None, None),
            "A%\t\\caf\u{e9}"
        );
        assert_eq!(print("", None, Some(b"x")), "");
    }

    #[test]
    fn the_default_is_the_value_and_an_end() {
        assert_eq!(Format::value_and(b'\n'), r"%s\n".parse().unwrap());
        assert_eq!(Format::value_and(0), r"%s\x00".parse().unwrap());
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let error = |text: &str| text.parse::<Format>().unwrap_err();
        assert_eq!(error("%q"), FormatError::UnknownToken { found: Some('q') });
        assert_eq!(error("%\u{e9}"), FormatError::UnknownToken { found: Some('\u{e9}') });
        assert_eq!(error("a%"), FormatError::UnknownToken { found: None });
        assert_eq!(error("a\\"), FormatError::Escape(EscapeError::Unfinished));
    }
}
