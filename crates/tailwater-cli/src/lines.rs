//! A stream of bytes, cut into records at a delimiter, as it arrives.

use std::io::{self, Read};

use memchr::memmem::Finder;

/// Longest record that is waited for, in bytes: four times what a batch takes, since JSON is longer than what it says.
pub const MAX_LINE_BYTES: usize = 64 * 1024 * 1024;

/// How much is read at a time, in bytes: what a pipe holds, or more.
const READ_BYTES: usize = 256 * 1024;

/// Cuts a stream into records.
///
/// Each delimiter ends a record, so two in a row make an empty one. What follows the last delimiter, if it is anything,
/// is a record too. Nothing else is changed: `\r` before `\n` stays.
///
/// # Examples
///
/// ```
/// use tailwater_cli::lines::LineCutter;
///
/// let mut input = &b"one\n\ntwo"[..];
/// let mut cutter = LineCutter::new(b"\n");
/// while cutter.read_from(&mut input)? > 0 {}
/// assert_eq!(cutter.next_line(), Some(&b"one"[..]));
/// assert_eq!(cutter.next_line(), Some(&b""[..]));
/// assert_eq!(cutter.next_line(), None);
/// assert_eq!(cutter.take_rest(), Some(&b"two"[..]));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct LineCutter {
    finder: Finder<'static>,
    /// The delimiter, if it is a single byte: the usual case, and the fast one.
    byte: Option<u8>,
    buffer: Vec<u8>,
    /// `[start, end)` of the buffer is filled and not handed out; no delimiter ends in `[start, searched)`.
    start: usize,
    searched: usize,
    end: usize,
    count: u64,
}

impl LineCutter {
    /// Cuts at `delimiter`.
    ///
    /// # Panics
    ///
    /// If the delimiter is empty: it would end a record everywhere.
    #[must_use]
    pub fn new(delimiter: &[u8]) -> Self {
        assert!(!delimiter.is_empty(), "a delimiter has at least one byte");
        Self {
            finder: Finder::new(delimiter).into_owned(),
            byte: match delimiter {
                [byte] => Some(*byte),
                _ => None,
            },
            buffer: vec![0; READ_BYTES],
            start: 0,
            searched: 0,
            end: 0,
            count: 0,
        }
    }

    /// Reads once: as much as is there, at least a byte. Returns how many there were; 0 at the end of the stream.
    ///
    /// # Errors
    ///
    /// Those of the stream but an interruption; `InvalidData` if a record is longer than [`MAX_LINE_BYTES`].
    pub fn read_from(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        self.make_room()?;
        loop {
            match stream.read(&mut self.buffer[self.end..]) {
                Ok(count) => {
                    self.end += count;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next whole record, without its delimiter; `None` if more has to be read first.
    pub fn next_line(&mut self) -> Option<&[u8]> {
        let searched = &self.buffer[self.searched..self.end];
        let found = match self.byte {
            Some(byte) => memchr::memchr(byte, searched),
            None => self.finder.find(searched),
        };
        let width = self.finder.needle().len();
        let Some(found) = found else {
            // The first part of a delimiter may be there already.
            self.searched = self.end.saturating_sub(width - 1).max(self.start);
            return None;
        };
        let line = self.start..self.searched + found;
        self.start = line.end + width;
        self.searched = self.start;
        self.count += 1;
        Some(&self.buffer[line])
    }

    /// What follows the last delimiter, at the end of the stream; `None` if it is nothing.
    pub fn take_rest(&mut self) -> Option<&[u8]> {
        let rest = self.start..self.end;
        self.start = self.end;
        self.searched = self.end;
        if rest.is_empty() {
            return None;
        }
        self.count += 1;
        Some(&self.buffer[rest])
    }

    /// How many records were handed out: the number, from 1, of the last one.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    fn make_room(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.searched -= self.start;
            self.start = 0;
        }
        if self.end > MAX_LINE_BYTES {
            let text = format!("record {} is longer than {MAX_LINE_BYTES} bytes", self.count + 1);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if self.buffer.len() - self.end < READ_BYTES / 2 {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out as many bytes at a time as it is told.
    struct Slow<'b>(&'b [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(buffer.len()).min(self.0.len());
            let (given, rest) = self.0.split_at(count);
            buffer[..count].copy_from_slice(given);
            self.0 = rest;
            Ok(count)
        }
    }

    fn cut(bytes: &[u8], delimiter: &[u8], at_a_time: usize) -> Vec<Vec<u8>> {
        let mut stream = Slow(bytes, at_a_time);
        let mut cutter = LineCutter::new(delimiter);
        let mut lines = Vec::new();
        while cutter.read_from(&mut stream).unwrap() > 0 {
            while let Some(line) = cutter.next_line() {
                lines.push(line.to_vec());
            }
        }
        lines.extend(cutter.take_rest().map(<[u8]>::to_vec));
        assert_eq!(cutter.count(), lines.len() as u64);
        lines
    }

    #[test]
    fn every_delimiter_ends_a_record_and_the_rest_is_one() {
        for at_a_time in [1, 2, 3, 1000] {
            assert_eq!(cut(b"", b"\n", at_a_time), [b""; 0]);
            assert_eq!(cut(b"\n", b"\n", at_a_time), [b""]);
            assert_eq!(cut(b"a\r\n\n b\n", b"\n", at_a_time), [&b"a\r"[..], b"", b" b"]);
            assert_eq!(cut(b"a\nb", b"\n", at_a_time), [b"a", b"b"]);
            assert_eq!(cut(b"a\nb\0c\0", b"\0", at_a_time), [&b"a\nb"[..], b"c"]);
            assert_eq!(cut(b"a---b----c-", b"---", at_a_time), [&b"a"[..], b"b", b"-c-"]);
        }
    }

    #[test]
    fn records_longer_than_a_read_are_whole() {
        let long = vec![b'x'; 3 * READ_BYTES + 17];
        let bytes = [b"short\n", &long[..], b"\n", &long[..5]].concat();
        assert_eq!(cut(&bytes, b"\n", usize::MAX), [b"short", &long[..], &long[..5]]);
        assert_eq!(cut(&bytes, b"\n", 1000).len(), 3);
    }

    #[test]
    fn a_record_without_an_end_is_not_waited_for_for_ever() {
        let mut cutter = LineCutter::new(b"\n");
        let error = loop {
            match cutter.read_from(&mut io::repeat(b'x')) {
                Ok(_) => assert_eq!(cutter.next_line(), None),
                Err(error) => break error,
            }
        };
        assert_eq!(error.to_string(), "record 1 is longer than 67108864 bytes");
        assert!(cutter.buffer.len() <= 4 * MAX_LINE_BYTES);
    }
}
