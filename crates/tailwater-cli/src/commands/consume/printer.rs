//! How a record is printed.

use tailwater::Record;
use tailwater_cli::format::{Fields, Format};
use tailwater_cli::json;

use crate::args::ConsumeArgs;

/// How a record is printed.
pub(in crate::commands) enum Printer {
    Format(Format),
    /// The byte ends each record.
    Json(u8),
}

impl Printer {
    /// A JSON object a line.
    pub(in crate::commands) fn json_lines() -> Self {
        Self::Json(b'\n')
    }

    pub(super) fn new(args: &ConsumeArgs, json: bool) -> Self {
        let end = if args.zero { 0 } else { b'\n' };
        match &args.format {
            Some(format) => Self::Format(format.clone()),
            None if json || args.json => Self::Json(end),
            None => Self::Format(Format::value_and(end)),
        }
    }

    /// Appends the printed record to `out`.
    pub(super) fn print(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        let fields = Fields {
            topic: record.topic(),
            partition: record.partition(),
            offset: record.offset(),
            created_at: record.created_at(),
            appended_at: record.appended_at(),
            key: record.key(),
            value: record.value(),
            headers: || record.headers(),
        };
        match self {
            Self::Format(format) => format.write(fields, out),
            Self::Json(end) => {
                json::write_record(fields, out);
                out.push(*end);
            }
        }
    }
}
