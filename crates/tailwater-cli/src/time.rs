//! Times, durations and positions, as they are given on the command line.

use std::fmt;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use tailwater::{Offset, Reset, SeekTo, Timestamp};

/// A moment: `2026-11-22T18:30:00Z`, or `2h` for two hours ago.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// That moment.
    At(Timestamp),
    /// That long before now.
    Ago(Duration),
}

impl When {
    /// The moment, if it is `now` now.
    #[must_use]
    pub fn to_timestamp(self, now: Timestamp) -> Timestamp {
        match self {
            When::At(time) => time,
            When::Ago(ago) => now.saturating_sub_ms(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// Where in a partition: `earliest`, `latest`, `17`, `-10`, or a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Position {
    /// The first record there is.
    Earliest,
    /// Behind the last one.
    Latest,
    /// That offset.
    Offset(Offset),
    /// That many records before the end of each partition.
    Last(u64),
    /// The first record that was appended then or later.
    Time(When),
}

impl Position {
    /// The same place as something to seek to.
    #[must_use]
    pub fn to_seek(self) -> SeekTo {
        match self {
            Position::Earliest => SeekTo::Earliest,
            Position::Latest => SeekTo::Latest,
            Position::Offset(offset) => SeekTo::Offset(offset),
            Position::Last(count) => SeekTo::Last(count),
            Position::Time(When::At(time)) => SeekTo::Time(time),
            Position::Time(When::Ago(ago)) => SeekTo::Ago(ago),
        }
    }

    /// The same place as one to start at.
    #[must_use]
    pub fn to_reset(self) -> Reset {
        match self {
            Position::Earliest => Reset::Earliest,
            Position::Latest => Reset::Latest,
            Position::Offset(offset) => Reset::Offset(offset),
            Position::Last(count) => Reset::Last(count),
            Position::Time(When::At(time)) => Reset::Time(time),
            Position::Time(When::Ago(ago)) => Reset::Ago(ago),
        }
    }
}

/// Why a text is no time, duration or position. Says what it should look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeError {
    /// No duration.
    Duration,
    /// No moment.
    When,
    /// No position.
    Position,
    /// An offset of 2^63 or more.
    OffsetTooLarge,
}

impl fmt::Display for TimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TimeError::Duration => "a duration has a unit: 500ms, 5s, 1m30s, 2h, 7d",
            TimeError::When => "a time is 2026-11-22T18:30:00Z (with Z or an offset such as +01:00), or 2h for two hours ago",
            TimeError::Position => {
                "a position is earliest, latest, an offset such as 17, -10 for the last ten, \
                 a time such as 2026-11-22T18:30:00Z (with Z or an offset such as +01:00), or 2h for two hours ago"
            }
            TimeError::OffsetTooLarge => "offsets are below 9223372036854775808",
        })
    }
}

impl std::error::Error for TimeError {}

/// Reads a duration such as `500ms`, `1m30s`, `2h` or `7d` (days of 24 hours). `0` needs no unit.
///
/// # Errors
///
/// [`TimeError::Duration`], also for what is negative or has months or years.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// assert_eq!(tailwater_cli::time::parse_duration("1m30s").unwrap(), Duration::from_secs(90));
/// ```
pub fn parse_duration(text: &str) -> Result<Duration, TimeError> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let span: Span = text.parse().map_err(|_| TimeError::Duration)?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| TimeError::Duration)?;
    Duration::try_from(duration).map_err(|_| TimeError::Duration)
}

/// Reads a moment: RFC 3339, or how long ago it was.
///
/// # Errors
///
/// [`TimeError::When`].
pub fn parse_when(text: &str) -> Result<When, TimeError> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(When::At(Timestamp::from_millis(time.as_millisecond())));
    }
    parse_duration(text).map(When::Ago).map_err(|_| TimeError::When)
}

/// Reads a position. An integer is an offset, and a negative one counts from the end.
///
/// # Errors
///
/// [`TimeError::Position`], [`TimeError::OffsetTooLarge`].
pub fn parse_position(text: &str) -> Result<Position, TimeError> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text {
        "earliest" => return Ok(Position::Earliest),
        "latest" => return Ok(Position::Latest),
        _ => {}
    }
    if is_number(text) {
        let offset = text.parse().ok().and_then(Offset::try_new);
        return offset.map(Position::Offset).ok_or(TimeError::OffsetTooLarge);
    }
    if let Some(count) = text.strip_prefix('-').filter(|count| is_number(count)) {
        // More than there can be is all there is.
        return Ok(Position::Last(count.parse().unwrap_or(u64::MAX)));
    }
    parse_when(text).map(Position::Time).map_err(|_| TimeError::Position)
}

/// Writes a time as RFC 3339 with milliseconds, or, far outside of this era, as a number of milliseconds since 1970. That is
/// never read as anything else: a bare `333333333333642 ms` would be a duration.
#[must_use]
pub fn show_time(time: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(time.as_millis()) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{time} since 1970"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("5s", 5_000),
            ("1m30s", 90_000),
            ("1m 30s", 90_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
            ("1.5h", 5_400_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "-5s", "5x", "1mo", "1y", "s", "99999999999999999999s", "5s ago"] {
            assert_eq!(parse_duration(text), Err(TimeError::Duration), "{text}");
        }
    }

    #[test]
    fn moments_are_rfc_3339_or_ago() {
        let at = |ms| Ok(When::At(Timestamp::from_millis(ms)));
        assert_eq!(parse_when("1970-01-01T00:00:01Z"), at(1000));
        assert_eq!(parse_when("1970-01-01T01:00:00.5+01:00"), at(500));
        assert_eq!(parse_when("1969-12-31T23:59:59Z"), at(-1000));
        assert_eq!(parse_when("2h"), Ok(When::Ago(Duration::from_secs(7200))));
        for text in ["", "yesterday", "2026-11-22", "2026-11-22T18:30:00", "18:30", "-2h"] {
            assert_eq!(parse_when(text), Err(TimeError::When), "{text}");
        }
    }

    #[test]
    fn ago_counts_from_now() {
        let now = Timestamp::from_millis(10_000);
        assert_eq!(When::Ago(Duration::from_secs(3)).to_timestamp(now), Timestamp::from_millis(7_000));
        assert_eq!(When::At(Timestamp::from_millis(5)).to_timestamp(now), Timestamp::from_millis(5));
    }

    #[test]
    fn positions_are_words_numbers_or_moments() {
        assert_eq!(parse_position("earliest"), Ok(Position::Earliest));
        assert_eq!(parse_position("latest"), Ok(Position::Latest));
        assert_eq!(parse_position("17"), Ok(Position::Offset(Offset::new(17))));
        assert_eq!(parse_position("0"), Ok(Position::Offset(Offset::ZERO)));
        assert_eq!(parse_position("-10"), Ok(Position::Last(10)));
        assert_eq!(parse_position("-99999999999999999999"), Ok(Position::Last(u64::MAX)));
        assert_eq!(parse_position("2h"), Ok(Position::Time(When::Ago(Duration::from_secs(7200)))));
        assert_eq!(parse_position("9223372036854775808"), Err(TimeError::OffsetTooLarge));
        for text in ["", "-", "first", "1.5", "+3", "0x10", "-2h", "2026-11-22"] {
            assert_eq!(parse_position(text), Err(TimeError::Position), "{text}");
        }
    }

    #[test]
    fn times_are_shown_as_they_are_read() {
        let time = Timestamp::from_millis(1_795_372_200_123);
        assert_eq!(show_time(time), "2026-11-22T18:30:00.123Z");
        assert_eq!(parse_when(&show_time(time)), Ok(When::At(time)));
        assert_eq!(show_time(Timestamp::from_millis(i64::MAX)), "9223372036854775807 ms since 1970");
    }
}
