//! What goes to standard output, or to a file: tables, JSON, and what to do when nobody reads it any more.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::exit::{Failure, Result};

/// How much is gathered before it is written, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// Standard output with a buffer, or a file. A closed standard output is [`Failure::StdoutClosed`].
pub(crate) struct Output {
    out: Box<dyn Write>,
    /// What a file is called in errors.
    file: Option<String>,
    buffer: Vec<u8>,
}

impl Output {
    pub(crate) fn new() -> Self {
        let out = Box::new(io::stdout().lock());
        Self { out, file: None, buffer: Vec::with_capacity(2 * BUFFER_BYTES) }
    }

    pub(crate) fn to_file(file: File, name: String) -> Self {
        Self { out: Box::new(file), file: Some(name), buffer: Vec::with_capacity(2 * BUFFER_BYTES) }
    }

    fn explain(&self, error: &io::Error) -> Failure {
        match &self.file {
            None => Failure::stdout(error),
            Some(name) => Failure::failed(format!("cannot write {name}: {error}")),
        }
    }

    /// What waits to be written: more can be appended, if [`Output::spill`] is called now and then.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Writes what waits, if that is much.
    pub(crate) fn spill(&mut self) -> Result<()> {
        if self.buffer.len() < BUFFER_BYTES {
            return Ok(());
        }
        let written = self.out.write_all(&self.buffer);
        self.buffer.clear();
        written.map_err(|error| self.explain(&error))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.spill()
    }

    pub(crate) fn line(&mut self, text: &str) -> Result<()> {
        self.buffer.extend_from_slice(text.as_bytes());
        self.write(b"\n")
    }

    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value).map_err(|error| Failure::failed(error.to_string()))?;
        self.line(&text)
    }

    /// Hands everything to the operating system.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let written = self.out.write_all(&self.buffer).and_then(|()| self.out.flush());
        self.buffer.clear();
        written.map_err(|error| self.explain(&error))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // After a failure, which is told: what was printed before it is shown.
        let _ = self.flush();
    }
}

/// Prints one JSON document.
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::failed(error.to_string()))?;
    print(&text)
}

/// Prints a line.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut output = Output::new();
    output.line(text)?;
    output.flush()
}

/// A column of a table.
#[derive(Clone, Copy)]
pub(crate) enum Column {
    /// Left-aligned.
    Text(&'static str),
    /// Right-aligned.
    Number(&'static str),
}

/// Prints a table: columns separated by two spaces, the first line their names in capitals.
pub(crate) fn print_table(columns: &[Column], rows: Vec<Vec<String>>) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(columns.iter().map(|column| match column {
        Column::Text(name) | Column::Number(name) => *name,
    }));
    table.add_rows(rows);
    for (index, column) in columns.iter().enumerate() {
        if let Some(shown) = table.column_mut(index) {
            shown.set_padding((0, 2));
            if let Column::Number(_) = column {
                shown.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let mut output = Output::new();
    for line in table.lines() {
        output.line(line.trim_end())?;
    }
    output.flush()
}

/// A progress bar over `total` bytes, on standard error if that is a terminal.
pub(crate) fn progress(total_bytes: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total_bytes);
    let style = "{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    // The default style is as good if this one should not parse.
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A progress bar over about `total` records, on standard error if that is a terminal.
pub(crate) fn progress_of_records(total: u64) -> ProgressBar {
    let bar = progress(total);
    let style = "{wide_bar} {human_pos} of {human_len} records, {per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

/// A progress bar over `total` steps, each with a message, on standard error if that is a terminal. It is drawn when
/// something is said to it, and by no thread of its own.
pub(crate) fn progress_of_steps(total: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {msg}, {eta} left") {
        bar.set_style(style);
    }
    bar
}
