//! Bytes written as text: `\n`, `\t`, `\r`, `\\` and `\xNN`.

use std::fmt;

/// Why a text has no meaning as escaped bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EscapeError {
    /// The backslash is the last character.
    Unfinished,
    /// There is no such escape.
    Unknown {
        /// The character behind the backslash.
        found: char,
    },
    /// `\x` is not followed by two hexadecimal digits.
    NotHexadecimal,
}

impl fmt::Display for EscapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EscapeError::Unfinished => f.write_str("a backslash at the end: write `\\\\` for a backslash"),
            EscapeError::Unknown { found } => {
                write!(f, "there is no escape `\\{found}`: there are `\\n`, `\\t`, `\\r`, `\\\\` and `\\xNN`")
            }
            EscapeError::NotHexadecimal => f.write_str("`\\x` needs two hexadecimal digits, such as `\\x1f`"),
        }
    }
}

impl std::error::Error for EscapeError {}

/// Turns escaped text into bytes.
///
/// # Errors
///
/// What is wrong with the first bad escape.
///
/// # Examples
///
/// ```
/// assert_eq!(tailwater_cli::escapes::unescape(r"a\t\x00").unwrap(), b"a\t\0");
/// ```
pub fn unescape(text: &str) -> Result<Vec<u8>, EscapeError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let (byte, after) = escape(&rest[at + 1..])?;
        bytes.push(byte);
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// Reads one escape, whose backslash is behind us. Returns its byte and the text that follows.
pub(crate) fn escape(text: &str) -> Result<(u8, &str), EscapeError> {
    let mut characters = text.chars();
    let byte = match characters.next() {
        None => return Err(EscapeError::Unfinished),
        Some('n') => b'\n',
        Some('t') => b'\t',
        Some('r') => b'\r',
        Some('\\') => b'\\',
        Some('x') => {
            let digits = characters.as_str().get(..2).ok_or(EscapeError::NotHexadecimal)?;
            // `from_str_radix` would take a sign.
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(EscapeError::NotHexadecimal);
            }
            let byte = u8::from_str_radix(digits, 16).map_err(|_| EscapeError::NotHexadecimal)?;
            return Ok((byte, &characters.as_str()[2..]));
        }
        Some(found) => return Err(EscapeError::Unknown { found }),
    };
    Ok((byte, characters.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_become_their_bytes() {
        assert_eq!(unescape("plain, caf\u{e9}").unwrap(), "plain, caf\u{e9}".as_bytes());
        assert_eq!(unescape(r"\n\t\r\\\x7F\xff").unwrap(), b"\n\t\r\\\x7f\xff");
        assert_eq!(unescape(r"\x41\x4a.").unwrap(), b"AJ.");
        assert_eq!(unescape("").unwrap(), b"");
    }

    #[test]
    fn bad_escapes_are_told_apart() {
        assert_eq!(unescape("a\\"), Err(EscapeError::Unfinished));
        assert_eq!(unescape(r"\q"), Err(EscapeError::Unknown { found: 'q' }));
        assert_eq!(unescape("\\\u{e9}"), Err(EscapeError::Unknown { found: '\u{e9}' }));
        for text in [r"\x", r"\x4", r"\x4g", r"\x+4", "\\x4\u{e9}", "\\x\u{e9}"] {
            assert_eq!(unescape(text), Err(EscapeError::NotHexadecimal), "{text}");
        }
    }
}
