//! What is given to the command as text, and what it reads, parsed: no panic, and what is printed is read back.

use std::io::Read;

use arbitrary::{Arbitrary, Result, Unstructured};
use tailwater::{Header, Offset, PartitionId, Timestamp};
use tailwater_cli::escapes::unescape;
use tailwater_cli::format::{Fields, Format};
use tailwater_cli::json::{JsonRecord, parse_record, write_record};
use tailwater_cli::lines::LineCutter;
use tailwater_cli::pairs::parse_pair;
use tailwater_cli::time::{Position, When, parse_duration, parse_position, parse_when, show_time};

/// The first byte chooses the parser.
pub(crate) fn run(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let text = || std::str::from_utf8(rest).ok();
    match choice % 8 {
        0 => text().map_or((), escapes),
        1 => text().map_or((), format),
        2 => text().map_or((), pairs),
        3 => text().map_or((), times),
        4 => json(rest),
        5 => text().map_or((), written_number),
        // What is not enough for a value is none.
        6 => drop(lines(&mut Unstructured::new(rest))),
        _ => drop(record(&mut Unstructured::new(rest))),
    }
}

fn escapes(text: &str) {
    match unescape(text) {
        Ok(bytes) => {
            assert!(bytes.len() <= text.len());
            let escaped: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            assert_eq!(unescape(&escaped).as_deref(), Ok(&bytes[..]));
            assert!(text.contains('\\') || bytes == text.as_bytes());
        }
        Err(error) => assert!(text.contains('\\') && !error.to_string().is_empty()),
    }
}

fn format(text: &str) {
    let headers = [Header { key: "a", value: Some(b"1") }, Header { key: "b", value: None }];
    let fields = Fields {
        topic: "orders",
        partition: PartitionId::new(3),
        offset: Offset::new(17),
        created_at: Timestamp::from_millis(-5),
        appended_at: Timestamp::from_millis(6),
        key: Some(b"key"),
        value: None,
        headers: || headers.into_iter(),
    };
    let Ok(format) = text.parse::<Format>() else {
        assert!(text.contains(['%', '\\']), "any other text is its own format");
        return;
    };
    let mut printed = Vec::new();
    format.write(fields, &mut printed);
    assert!(printed.len() <= 10 * text.len());
    if !text.contains('%') {
        assert_eq!(unescape(text), Ok(printed));
    }
}

fn pairs(text: &str) {
    match parse_pair(text) {
        Ok((key, value)) => {
            assert!(!key.is_empty() && !key.contains('='));
            assert_eq!(format!("{key}={value}"), text);
        }
        Err(_) => assert!(!text.contains('=') || text.starts_with('=')),
    }
}

fn times(text: &str) {
    let duration = parse_duration(text);
    match parse_when(text) {
        Ok(When::At(time)) => {
            assert!(duration.is_err(), "it is a moment or a duration");
            assert_eq!(parse_when(&show_time(time)), Ok(When::At(time)));
        }
        Ok(When::Ago(ago)) => {
            assert_eq!(duration, Ok(ago));
            let now = Timestamp::from_millis(0);
            assert!(When::Ago(ago).to_timestamp(now) <= now);
        }
        Err(_) => assert!(duration.is_err()),
    }
    match parse_position(text) {
        Ok(Position::Offset(offset)) => assert_eq!(text.parse(), Ok(offset.get())),
        Ok(Position::Last(_)) => assert!(text.starts_with('-')),
        Ok(Position::Time(when)) => assert_eq!(parse_when(text), Ok(when)),
        Ok(Position::Earliest | Position::Latest) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A number of milliseconds, shown as a time, is read as the same again.
fn written_number(text: &str) {
    let Ok(ms) = text.parse() else { return };
    let time = Timestamp::from_millis(ms);
    if let Ok(read) = parse_when(&show_time(time)) {
        assert_eq!(read, When::At(time));
    }
}

fn json(line: &[u8]) {
    match parse_record(line) {
        Ok(record) => print_and_read(&record),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn record(u: &mut Unstructured<'_>) -> Result<()> {
    let partition = PartitionId::new(u.int_in_range(0..=i32::MAX as u32)?);
    let mut record = JsonRecord {
        key: u.arbitrary()?,
        value: u.arbitrary()?,
        headers: u.arbitrary()?,
        partition: Some(partition),
        timestamp: Some(Timestamp::from_millis(u.arbitrary()?)),
    };
    if record.value.is_none() {
        record.key.get_or_insert_default();
    }
    print_and_read(&record);
    Ok(())
}

/// Printed as `consume --json` does, it is read as `produce --json` does.
fn print_and_read(record: &JsonRecord<'_>) {
    let mut record = record.clone();
    let partition = *record.partition.get_or_insert(PartitionId::ZERO);
    let created_at = *record.timestamp.get_or_insert_default();
    let headers = || record.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() });
    let fields = Fields {
        topic: "orders",
        partition,
        offset: Offset::new(17),
        created_at,
        appended_at: Timestamp::default(),
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers,
    };
    let mut line = Vec::new();
    write_record(fields, &mut line);
    assert!(!line.contains(&b'\n'), "a record is a line");
    let again = parse_record(&line).unwrap_or_else(|error| panic!("{error}: {}", line.escape_ascii()));
    assert_eq!(again, record);
}

/// Gives out as many bytes at a time as it is told.
struct Slow<'b> {
    bytes: &'b [u8],
    counts: std::iter::Cycle<std::slice::Iter<'b, u8>>,
}

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.counts.next().map_or(1, |count| 1 + usize::from(*count));
        let count = count.min(buffer.len()).min(self.bytes.len());
        let (given, rest) = self.bytes.split_at(count);
        buffer[..count].copy_from_slice(given);
        self.bytes = rest;
        Ok(count)
    }
}

/// However the bytes arrive, the lines are those between the delimiters.
fn lines(u: &mut Unstructured<'_>) -> Result<()> {
    let counts = <&[u8]>::arbitrary(u)?;
    let delimiter = <[u8; 3]>::arbitrary(u)?;
    let delimiter = &delimiter[..1 + usize::from(u8::arbitrary(u)?) % 3];
    let bytes = u.bytes(u.len())?;
    let mut cutter = LineCutter::new(delimiter);
    let mut stream = Slow { bytes, counts: counts.iter().cycle() };
    let mut found = Vec::new();
    while cutter.read_from(&mut stream).unwrap() > 0 {
        while let Some(line) = cutter.next_line() {
            found.push(line.to_vec());
        }
    }
    found.extend(cutter.take_rest().map(<[u8]>::to_vec));
    assert_eq!(cutter.count(), found.len() as u64);
    assert_eq!(found, split(bytes, delimiter));
    Ok(())
}

fn split(mut bytes: &[u8], delimiter: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    while let Some(at) = bytes.windows(delimiter.len()).position(|window| window == delimiter) {
        lines.push(bytes[..at].to_vec());
        bytes = &bytes[at + delimiter.len()..];
    }
    if !bytes.is_empty() {
        lines.push(bytes.to_vec());
    }
    lines
}
