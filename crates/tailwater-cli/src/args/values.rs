//! Values of arguments: separators, offsets, partitions, counts.

use std::str::FromStr;

use tailwater::{Offset, PartitionId};
use tailwater_cli::escapes::unescape;

/// Bytes that separate something: at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Separator(pub(crate) Vec<u8>);

pub(super) fn parse_separator(text: &str) -> Result<Separator, String> {
    let bytes = unescape(text).map_err(|error| error.to_string())?;
    if bytes.is_empty() { Err("it cannot be empty".to_owned()) } else { Ok(Separator(bytes)) }
}

pub(super) fn parse_offset(text: &str) -> Result<Offset, String> {
    let offset = text.parse().ok().and_then(Offset::try_new);
    offset.ok_or_else(|| "an offset is a whole number from 0, below 9223372036854775808".to_owned())
}

pub(super) fn parse_partition(text: &str) -> Result<PartitionId, String> {
    let partition = text.parse().ok().and_then(PartitionId::try_new);
    partition.ok_or_else(|| "a partition is a whole number from 0, below 2147483648".to_owned())
}

pub(super) fn parse_count<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| "it must be a whole number from 0, and not too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_are_bytes_and_not_empty() {
        assert_eq!(parse_separator(r"\x00\t"), Ok(Separator(vec![0, b'\t'])));
        assert!(parse_separator("").is_err());
        assert!(parse_separator(r"\q").unwrap_err().contains("no escape"));
    }
}
