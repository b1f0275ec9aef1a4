//! The reading half: lines in, records out, receipts handed over.

use std::io::Read;
use std::sync::mpsc::SyncSender;

use indicatif::ProgressBar;
use tailwater::{Appended, Producer, Receipt};
use tailwater_cli::lines::LineCutter;

use super::shape::Shape;
use crate::exit::{Failure, Result};

/// How many receipts are handed over together at most: short lines make many.
const MAX_RECEIPTS: usize = 4096;

/// Reads lines, sends records, and hands their receipts over.
pub(super) struct Reader {
    pub(super) cutter: LineCutter,
    pub(super) shape: Shape,
    pub(super) producer: Producer,
    pub(super) sender: SyncSender<Vec<Receipt<Appended>>>,
    pub(super) bar: ProgressBar,
    /// What the input is called in errors.
    pub(super) name: String,
    /// What a record is called in errors.
    pub(super) unit: &'static str,
}

impl Reader {
    /// Reads `stream` to its end. Stops early, without an error, if nobody takes the receipts any more.
    pub(super) fn run(self, mut stream: impl Read) -> Result<()> {
        let Self { mut cutter, shape, producer, sender, bar, name, unit } = self;
        let headers = shape.headers();
        let at_line =
            |number: u64, failure: Failure| failure.map_text(|text| format!("{unit} {number}: {text}"));
        let mut receipts = Vec::new();
        loop {
            let read = cutter.read_from(&mut stream);
            let count = read.map_err(|error| Failure::failed(format!("cannot read {name}: {error}")))?;
            bar.inc(count as u64);
            let mut failed = None;
            // What follows the last delimiter is a record only if no more comes.
            while let Some(line) = if count > 0 { cutter.next_line() } else { cutter.take_rest() } {
                match shape.send(&producer, line, &headers) {
                    Ok(receipt) => receipts.push(receipt),
                    Err(failure) => {
                        failed = Some(failure);
                        break;
                    }
                }
                if receipts.len() >= MAX_RECEIPTS && sender.send(std::mem::take(&mut receipts)).is_err() {
                    return Ok(());
                }
            }
            // What was sent before a failure is acknowledged all the same.
            let is_heard = receipts.is_empty() || sender.send(std::mem::take(&mut receipts)).is_ok();
            if let Some(failure) = failed {
                return Err(at_line(cutter.count(), failure));
            }
            if count == 0 || !is_heard {
                return Ok(());
            }
        }
    }
}
