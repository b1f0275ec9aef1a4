//! `key=value`, as settings and headers are given.

use std::fmt;

/// A text without `=`, or with nothing before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PairError;

impl fmt::Display for PairError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it must be written as KEY=VALUE")
    }
}

impl std::error::Error for PairError {}

/// Splits at the first `=`. The key is not empty; the value may be, and may contain `=`.
///
/// # Errors
///
/// [`PairError`] if there is no `=`, or no key.
///
/// # Examples
///
/// ```
/// let pair = tailwater_cli::pairs::parse_pair("trace=a=b").unwrap();
/// assert_eq!(pair, ("trace".to_owned(), "a=b".to_owned()));
/// ```
pub fn parse_pair(text: &str) -> Result<(String, String), PairError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(PairError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_split_at_its_first_equals_sign() {
        assert_eq!(parse_pair("a=").unwrap(), ("a".to_owned(), String::new()));
        assert_eq!(parse_pair("a b==c").unwrap(), ("a b".to_owned(), "=c".to_owned()));
        for text in ["", "a", "=b", "="] {
            assert_eq!(parse_pair(text), Err(PairError), "{text}");
        }
    }
}
