//! How a command fails: its message and its exit code.
//!
//! | Code | Meaning |
//! |---|---|
//! | 0 | done; also a closed standard output |
//! | 1 | failed |
//! | 2 | usage: the arguments make no sense |
//! | 3 | corruption: stored bytes are not what was written; never for a torn tail |
//! | 4 | another process writes to the directory |
//! | 5 | `--timeout` passed before `--max` records were there |

use std::fmt;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tailwater::{Error, Locked};

/// The result of a command.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody reads standard output any more: no failure to whoever closed it.
    StdoutClosed,
    /// What standard error says, and the exit code.
    Message { code: u8, text: String, unknown: Option<Unknown> },
}

/// A name that nothing has, which may be misspelt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unknown {
    Topic(Arc<str>),
    Group(Arc<str>),
}

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const CORRUPT: u8 = 3;
const LOCKED: u8 = 4;
const TIMED_OUT: u8 = 5;

impl Failure {
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::message(FAILED, text)
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::message(USAGE, text)
    }

    pub(crate) fn corrupt(text: impl Into<String>) -> Self {
        Self::message(CORRUPT, text)
    }

    pub(crate) fn timed_out(text: impl Into<String>) -> Self {
        Self::message(TIMED_OUT, text)
    }

    fn message(code: u8, text: impl Into<String>) -> Self {
        Self::Message { code, text: text.into(), unknown: None }
    }

    /// Another process writes to the directory, and did so all the time that it was waited for.
    pub(crate) fn locked(locked: &Locked, waited: Duration) -> Self {
        let holder = locked.holder.as_deref().unwrap_or("another process");
        let directory = locked.path.parent().unwrap_or(&locked.path).display();
        let text = if waited.is_zero() {
            format!(
                "{directory} is in use by {holder}: close it there, or wait for it with --lock-timeout 10s"
            )
        } else {
            format!(
                "{directory} is still in use by {holder} after {waited:?}: close it there, or wait longer"
            )
        };
        Self::message(LOCKED, text)
    }

    /// The same failure; where another process writes, it says `what_else` can be done.
    pub(crate) fn or_if_locked(self, what_else: &str) -> Self {
        match self {
            Self::Message { code: LOCKED, .. } => self.map_text(|text| format!("{text}; {what_else}")),
            other => other,
        }
    }

    /// The same failure; a name that nothing has is followed by the one that was meant, as far as `find` knows.
    pub(crate) fn suggest(self, find: impl FnOnce(&Unknown) -> Option<String>) -> Self {
        let Self::Message { unknown: Some(unknown), .. } = &self else { return self };
        match find(unknown) {
            Some(name) => self.map_text(|text| format!("{text}; did you mean {name}?")),
            None => self,
        }
    }

    /// What failed on standard output.
    pub(crate) fn stdout(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::StdoutClosed,
            _ => Self::failed(format!("cannot write to standard output: {error}")),
        }
    }

    /// The same failure, its text changed.
    pub(crate) fn map_text(self, change: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Message { code, text, unknown } => Self::Message { code, text: change(text), unknown },
            closed @ Self::StdoutClosed => closed,
        }
    }

    /// Says on standard error what went wrong. Returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::StdoutClosed => ExitCode::SUCCESS,
            Self::Message { code, text, .. } => {
                complain("error", text);
                ExitCode::from(code)
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = match &error {
            Error::Locked(locked) => return Self::locked(locked, Duration::ZERO),
            Error::DirectoryMissing { path } => format!(
                "there is no directory {}: check --data, or create a topic in it first with `tailwater topic create`",
                path.display()
            ),
            other => other.to_string(),
        };
        let unknown = match &error {
            Error::UnknownTopic { topic } => Some(Unknown::Topic(Arc::clone(topic))),
            Error::UnknownGroup { group } => Some(Unknown::Group(Arc::clone(group))),
            _ => None,
        };
        Self::Message { code: code_of(&error), text, unknown }
    }
}

impl From<tailwater_log::Error> for Failure {
    fn from(error: tailwater_log::Error) -> Self {
        let code = if matches!(error, tailwater_log::Error::Corrupt(_)) { CORRUPT } else { FAILED };
        Self::message(code, error.to_string())
    }
}

fn code_of(error: &Error) -> u8 {
    match error {
        Error::Locked(_) => LOCKED,
        Error::Corrupt(_)
        | Error::CatalogDamaged { .. }
        | Error::CatalogMissing { .. }
        | Error::ContradictingDirectories(_)
        | Error::GroupsLogDamaged { .. }
        | Error::BackupDamaged { .. }
        | Error::WrongPartition { .. } => CORRUPT,
        Error::InvalidTopicName { .. }
        | Error::InvalidGroupId { .. }
        | Error::UnknownSetting { .. }
        | Error::InvalidSetting(_)
        | Error::InvalidConfig(_)
        | Error::UnsupportedCompression { .. }
        | Error::InvalidPartitionCount { .. } => USAGE,
        Error::Failed { cause, .. } => code_of(cause),
        _ => FAILED,
    }
}

/// The exit code of what `clap` says: 0 for help that was asked for.
pub(crate) fn code_of_parsing(error: &clap::Error) -> ExitCode {
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// Says something that does not end the command.
pub(crate) fn warn(text: impl fmt::Display) {
    complain("warning", text);
}

/// Says one of several errors; the last one ends the command.
pub(crate) fn complain_of(text: impl fmt::Display) {
    complain("error", text);
}

fn complain(kind: &str, text: impl fmt::Display) {
    use io::Write;
    // There is nowhere to say that standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{kind}: {text}");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_cause_of_a_stopped_log_gives_the_code() {
        let cause = Arc::new(Error::CatalogMissing { path: Path::new("/d").into() });
        assert_eq!(code_of(&Error::Failed { partition: None, cause }), CORRUPT);
        assert_eq!(code_of(&Error::Closed), FAILED);
    }

    #[test]
    fn a_missing_directory_says_what_to_do_here() {
        let failure = Failure::from(Error::DirectoryMissing { path: Path::new("/d").into() });
        let Failure::Message { code: FAILED, text, .. } = failure else { panic!("{failure:?}") };
        assert_eq!(
            text,
            "there is no directory /d: check --data, or create a topic in it first with `tailwater topic create`"
        );
    }
}
