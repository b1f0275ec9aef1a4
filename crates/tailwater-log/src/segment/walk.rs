//! Walks over the batches of a file by position, trusting nothing: for recovery, verification and indexes.
//!
//! Always reads with `pread`, so that a failing disk is an error value.

use crate::format::{
    self, ALIGNMENT, BATCH_HEADER_BYTES, BatchHeader, BatchPlace, BodyFault, HeaderFault,
    PRODUCER_EXTENSION_BYTES,
};
use crate::storage::{FileHandle, StorageFile};
use crate::{FilePosition, Offset, Result};

use super::OpenSegment;

/// How much is read at a time when bodies are wanted, in bytes.
const WINDOW_BYTES: usize = 256 * 1024;
/// How much is read at a time when only headers are wanted and they are far apart, in bytes.
const HEADER_WINDOW_BYTES: usize = 4 * 1024;
/// Headers closer to each other than this are not read one by one: from a disk, all that lies between them is there sooner.
const FAR_BYTES: u64 = 64 * 1024;

/// A batch that the walk came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WalkedBatch {
    pub(crate) header: BatchHeader,
    pub(crate) position: FilePosition,
}

/// What the walk came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// A batch whose header (and body, if they are read) verifies and that begins at the expected offset.
    Batch(WalkedBatch),
    /// Something else, at this position. The walk can go on behind it.
    Bad { position: FilePosition, fault: BatchFault },
    /// No room for another batch before the end given.
    End,
}

/// Why no good batch is at a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum BatchFault {
    /// The header does not verify.
    Header(HeaderFault),
    /// The header does, the body does not, or the file ends within it.
    Body { header: BatchHeader, fault: Option<BodyFault> },
    /// The batch verifies and begins at another offset than expected.
    Offset { header: BatchHeader },
}

/// A walk over a part of a file.
#[derive(Debug)]
pub(crate) struct BatchWalk<'f> {
    file: &'f FileHandle,
    salt: u64,
    position: FilePosition,
    end: FilePosition,
    with_bodies: bool,
    window: Vec<u8>,
    window_start: FilePosition,
}

impl<'f> BatchWalk<'f> {
    /// A walk that checks headers and bodies of `[start, end)`.
    pub(crate) fn new(opened: &'f OpenSegment, start: FilePosition, end: FilePosition) -> Self {
        Self::with(&opened.file, opened.header.salt, start, end, true)
    }

    /// A walk that checks headers and trusts them for the bodies' lengths.
    pub(crate) fn headers_only(opened: &'f OpenSegment, start: FilePosition, end: FilePosition) -> Self {
        Self::with(&opened.file, opened.header.salt, start, end, false)
    }

    fn with(
        file: &'f FileHandle,
        salt: u64,
        start: FilePosition,
        end: FilePosition,
        with_bodies: bool,
    ) -> Self {
        Self { file, salt, position: start, end, with_bodies, window: Vec::new(), window_start: start }
    }

    /// Where the next batch is looked for.
    pub(crate) fn position(&self) -> FilePosition {
        self.position
    }

    /// Steps over the batch that should begin at offset `expected`. Stays where it is unless that is a good batch.
    pub(crate) fn next(&mut self, expected: Offset) -> Result<Step> {
        let position = self.position;
        if position.get() + BATCH_HEADER_BYTES as u64 > self.end.get() {
            return Ok(Step::End);
        }
        let step = self.look(position)?;
        match step {
            Ok(batch) if batch.header.base_offset == expected => {
                self.step_over(&batch);
                Ok(Step::Batch(batch))
            }
            Ok(batch) => Ok(Step::Bad { position, fault: BatchFault::Offset { header: batch.header } }),
            Err(fault) => Ok(Step::Bad { position, fault }),
        }
    }

    /// Moves behind what [`BatchWalk::next`] called bad: by its length if the header can be trusted, else to the next
    /// place where a batch could begin.
    pub(crate) fn skip(&mut self, fault: &BatchFault) {
        self.position = match fault {
            BatchFault::Body { header, .. } | BatchFault::Offset { header } => after(self.position, header),
            BatchFault::Header(_) => self.position.plus(ALIGNMENT),
        };
    }

    /// Looks for the next good batch, whatever its offset, at each place where one could begin, and steps over it.
    pub(crate) fn find(&mut self) -> Result<Option<WalkedBatch>> {
        let mut position = self.position;
        while position.get() + BATCH_HEADER_BYTES as u64 <= self.end.get() {
            match self.look(position)? {
                Ok(batch) => {
                    self.position = position;
                    self.step_over(&batch);
                    return Ok(Some(batch));
                }
                Err(BatchFault::Body { header, .. }) => position = after(position, &header),
                Err(BatchFault::Header(HeaderFault::Zero)) => {
                    // Preallocated space is all zeros: go to its end in one step.
                    match first_nonzero(&**self.file, position, self.end)? {
                        Some(found) => {
                            let start = found.get() / ALIGNMENT * ALIGNMENT;
                            // A header that begins with zeros begins at most its own length earlier.
                            let earliest = start.saturating_sub(BATCH_HEADER_BYTES as u64 - ALIGNMENT);
                            position = FilePosition::new(earliest.max(position.get() + ALIGNMENT));
                        }
                        None => break,
                    }
                }
                Err(_) => position = position.plus(ALIGNMENT),
            }
        }
        self.position = self.end;
        Ok(None)
    }

    fn step_over(&mut self, batch: &WalkedBatch) {
        self.position = after(batch.position, &batch.header);
    }

    /// Reads and checks the batch at `position`.
    fn look(&mut self, position: FilePosition) -> Result<Result<WalkedBatch, BatchFault>> {
        let place = BatchPlace { salt: self.salt, position };
        let bytes = self.bytes(position, BATCH_HEADER_BYTES + PRODUCER_EXTENSION_BYTES)?;
        let header = match BatchHeader::decode(bytes, place) {
            Ok(header) => header,
            Err(fault) => return Ok(Err(BatchFault::Header(fault))),
        };
        let length = header.length_bytes as usize;
        if position.get() + length as u64 > self.end.get() {
            return Ok(Err(BatchFault::Body { header, fault: None }));
        }
        if self.with_bodies {
            let bytes = self.bytes(position, length)?;
            if bytes.len() < length {
                return Ok(Err(BatchFault::Body { header, fault: None }));
            }
            if let Err(fault) = format::check_body(&header, &bytes[header.header_bytes()..]) {
                return Ok(Err(BatchFault::Body { header, fault: Some(fault) }));
            }
        }
        Ok(Ok(WalkedBatch { header, position }))
    }

    /// The whole encoded batch that the last step went over, if bodies are read.
    pub(crate) fn batch_bytes(&mut self, batch: &WalkedBatch) -> Result<&[u8]> {
        self.bytes(batch.position, batch.header.length_bytes as usize)
    }

    /// The bytes `[position, position + length)`, fewer only where the range walked over, or the file, ends.
    fn bytes(&mut self, position: FilePosition, length: usize) -> Result<&[u8]> {
        let available = self.end.get().saturating_sub(position.get());
        let length = length.min(usize::try_from(available).unwrap_or(usize::MAX));
        let inside = |window: &[u8], start: FilePosition| {
            let skip = usize::try_from(position.get().checked_sub(start.get())?).ok()?;
            (skip + length <= window.len()).then_some(skip)
        };
        let skip = match inside(&self.window, self.window_start) {
            Some(skip) => skip,
            None => {
                let is_near = position.get().saturating_sub(self.window_start.get())
                    < self.window.len() as u64 + FAR_BYTES;
                let window = if self.with_bodies || is_near { WINDOW_BYTES } else { HEADER_WINDOW_BYTES };
                let size = window.max(length).min(usize::try_from(available).unwrap_or(usize::MAX));
                self.window.resize(size, 0);
                let count = self.file.read_full_at(&mut self.window, position)?;
                self.window.truncate(count);
                self.window_start = position;
                0
            }
        };
        let end = (skip + length).min(self.window.len());
        Ok(&self.window[skip..end])
    }
}

/// Where the batch behind this one begins.
fn after(position: FilePosition, header: &BatchHeader) -> FilePosition {
    position.plus(format::aligned(u64::from(header.length_bytes)))
}

/// The position of the first byte of `[start, end)` that is not zero; `None` if all are, or the file ends before.
pub(crate) fn first_nonzero(
    file: &dyn StorageFile,
    start: FilePosition,
    end: FilePosition,
) -> Result<Option<FilePosition>> {
    let mut window = vec![0; WINDOW_BYTES];
    let mut position = start;
    while position < end {
        let wanted = usize::try_from(end.get() - position.get()).unwrap_or(usize::MAX).min(window.len());
        let count = file.read_full_at(&mut window[..wanted], position)?;
        if let Some(index) = window[..count].iter().position(|byte| *byte != 0) {
            return Ok(Some(position.plus(index as u64)));
        }
        if count < wanted {
            break;
        }
        position = position.plus(count as u64);
    }
    Ok(None)
}
