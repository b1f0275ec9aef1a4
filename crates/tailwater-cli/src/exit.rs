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

use tailwater::Error;

/// The result of a command.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody reads standard output any more: no failure to whoever closed it.
    StdoutClosed,
    /// What standard error says, and the exit code.
    Message { code: u8, text: String },
}

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const CORRUPT: u8 = 3;
const LOCKED: u8 = 4;
const TIMED_OUT: u8 = 5;

impl Failure {
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::Message { code: FAILED, text: text.into() }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Message { code: USAGE, text: text.into() }
    }

    pub(crate) fn corrupt(text: impl Into<String>) -> Self {
        Self::Message { code: CORRUPT, text: text.into() }
    }

    pub(crate) fn timed_out(text: impl Into<String>) -> Self {
        Self::Message { code: TIMED_OUT, text: text.into() }
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
            Self::Message { code, text } => Self::Message { code, text: change(text) },
            closed @ Self::StdoutClosed => closed,
        }
    }

    /// Says on standard error what went wrong. Returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::StdoutClosed => ExitCode::SUCCESS,
            Self::Message { code, text } => {
                complain("error", text);
                ExitCode::from(code)
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = match &error {
            Error::Locked(locked) => {
                let holder = locked.holder.as_deref().unwrap_or("another process");
                let directory = locked.path.parent().unwrap_or(&locked.path).display();
                format!(
                    "{directory} is in use by {holder}: close it there, or wait for it with --lock-timeout 10s"
                )
            }
            Error::DirectoryMissing { path } => format!(
                "there is no directory {}: check --data, or create a topic in it first with `tailwater topic create`",
                path.display()
            ),
            other => other.to_string(),
        };
        Self::Message { code: code_of(&error), text }
    }
}

impl From<tailwater_log::Error> for Failure {
    fn from(error: tailwater_log::Error) -> Self {
        let code = if matches!(error, tailwater_log::Error::Corrupt(_)) { CORRUPT } else { FAILED };
        Self::Message { code, text: error.to_string() }
    }
}

fn code_of(error: &Error) -> u8 {
    match error {
        Error::Locked(_) => LOCKED,
        Error::Corrupt(_)
        | Error::CatalogDamaged { .. }
        | Error::CatalogMissing { .. }
        | Error::GroupsLogDamaged { .. }
        | Error::WrongPartition { .. } => CORRUPT,
        Error::InvalidTopicName { .. }
        | Error::InvalidGroupId { .. }
        | Error::UnknownSetting { .. }
        | Error::InvalidSetting(_)
        | Error::InvalidConfig(_)
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
    use std::sync::Arc;

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
        let Failure::Message { code: FAILED, text } = failure else { panic!("{failure:?}") };
        assert_eq!(
            text,
            "there is no directory /d: check --data, or create a topic in it first with `tailwater topic create`"
        );
    }
}
