//! How long a record is to live: what one of its headers says, and whether that time is over.
//!
//! The log itself stores and returns every record. Whoever hands records out, or decides which of them are kept, asks
//! [`is_expired`].

use crate::Timestamp;
use crate::format::Header;

/// The name of the header that says how long a record lives: in milliseconds from its append time, in decimal digits.
///
/// Any other value, or none, says nothing: the record lives for ever. Of several headers of this name the last one counts.
pub const TTL_HEADER: &str = "tailwater-ttl-ms";

/// How many digits the greatest value has.
const MAX_DIGITS: usize = 20;

/// How long a record with these headers lives, in milliseconds; `None` for ever.
#[must_use]
pub fn ttl_ms<'h>(headers: impl IntoIterator<Item = Header<'h>>) -> Option<u64> {
    let found = headers.into_iter().filter(|header| header.key == TTL_HEADER).last()?;
    let digits = found.value.filter(|digits| !digits.is_empty() && digits.len() <= MAX_DIGITS)?;
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        value.checked_mul(10)?.checked_add(digit.into())
    })
}

/// Whether a record with these headers that was appended at `appended_at` is not to be handed out any more at `now`: from
/// so many milliseconds after its append on as its [`TTL_HEADER`] says.
///
/// # Examples
///
/// ```
/// use tailwater_log::Timestamp;
/// use tailwater_log::format::Header;
/// use tailwater_log::ttl::{TTL_HEADER, is_expired};
///
/// let headers = [Header { key: TTL_HEADER, value: Some(b"500") }];
/// let at = Timestamp::from_millis;
/// assert!(!is_expired(headers, at(1_000), at(1_499)));
/// assert!(is_expired(headers, at(1_000), at(1_500)));
/// assert!(!is_expired([], at(1_000), at(i64::MAX)));
/// ```
#[must_use]
pub fn is_expired<'h>(
    headers: impl IntoIterator<Item = Header<'h>>,
    appended_at: Timestamp,
    now: Timestamp,
) -> bool {
    ttl_ms(headers).is_some_and(|ttl_ms| now.since_ms(appended_at) >= ttl_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &[u8]) -> Header<'_> {
        Header { key: TTL_HEADER, value: Some(value) }
    }

    #[test]
    fn what_is_no_number_of_milliseconds_says_nothing() {
        for (value, ttl) in [
            (&b"0"[..], Some(0)),
            (b"500", Some(500)),
            (b"0500", Some(500)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"000000000000000000001", None),
            (b"", None),
            (b"+5", None),
            (b"-5", None),
            (b" 5", None),
            (b"5s", None),
            (b"5.0", None),
            (b"\xff", None),
            ("\u{665}".as_bytes(), None),
        ] {
            assert_eq!(ttl_ms([header(value)]), ttl, "{}", value.escape_ascii());
        }
        assert_eq!(ttl_ms([Header { key: TTL_HEADER, value: None }]), None);
        assert_eq!(ttl_ms([Header { key: "Tailwater-TTL-ms", value: Some(b"5") }]), None);
    }

    #[test]
    fn the_last_of_several_counts() {
        assert_eq!(ttl_ms([header(b"5"), Header { key: "trace", value: None }, header(b"7")]), Some(7));
        assert_eq!(ttl_ms([header(b"5"), header(b"x")]), None);
    }

    #[test]
    fn a_record_expires_when_its_time_is_over_and_never_before_it_was_appended() {
        let at = Timestamp::from_millis;
        for (ttl, appended_at, now, is_over) in [
            (&b"10"[..], 5, 14, false),
            (b"10", 5, 15, true),
            (b"0", 5, 5, true),
            (b"1", 5, 4, false),
            (b"1", 5, i64::MIN, false),
            (b"18446744073709551615", i64::MIN, i64::MAX, true),
            (b"18446744073709551615", i64::MIN, i64::MAX - 1, false),
            (b"1", i64::MAX, i64::MAX, false),
        ] {
            assert_eq!(is_expired([header(ttl)], at(appended_at), at(now)), is_over, "{appended_at} {now}");
        }
    }
}
