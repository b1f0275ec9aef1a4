//! The writing side of a log: what goes to the active segment, and in which order.
//!
//! - The dirty flag of the checkpoint is durable before the first byte after an open is written.
//! - A buffer that was taken from staging is written at its own place, again and again until that succeeds, and never
//!   with other bytes.
//! - At most two segments hold un-synced data: a roll waits until the one before the active is synced, and until the
//!   active one's name is.
//! - A footer is written only to a segment whose every byte, and whose successor's name, is durable.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::checkpoint_file::{CheckpointFile, ScanPoint};
use super::inner::Inner;
use super::staging::{StagedBuffer, StagingPlace};
use crate::error::CorruptionKind;
use crate::format::{Checkpoint, Footer, SEGMENT_DATA_START, SegmentHeader};
use crate::limits::{KIB, MIB};
use crate::mistakes::{Mistake, is_planted};
use crate::segment::{NewSegment, Segment, SegmentFault, read_header};
use crate::storage::{FileHandle, OpenMode};
use crate::sync::atomic::Ordering;
use crate::{Error, FilePosition, LogConfig, LogEpoch, Offset, OffsetRange, Result, Timestamp, format};

/// The temporary name of the segment that is made ready for the next roll.
const NEXT_SEGMENT_NAME: &str = "next.tmp";

/// First and largest step in which space is reserved, in bytes.
const FIRST_ALLOCATION_BYTES: u64 = 64 * KIB as u64;
const LARGEST_ALLOCATION_STEP_BYTES: u64 = 16 * MIB as u64;

/// Bytes written and synced after which the checkpoint is advanced.
const CHECKPOINT_INTERVAL_BYTES: u64 = 16 * MIB as u64;

/// A segment that was rolled and has no footer yet.
#[derive(Clone, Debug)]
pub(crate) struct Unsealed {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: FileHandle,
    pub(crate) header: SegmentHeader,
    /// Where its offsets end: the base of its successor.
    pub(crate) end: Offset,
    pub(crate) data_end: FilePosition,
}

/// The state of the writing side. Whoever has it out of its slot writes.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) active: Arc<Segment>,
    /// The active segment's file, if it is open: see [`Writer::open_active`].
    pub(crate) file: Option<FileHandle>,
    pub(crate) header: SegmentHeader,
    /// Where the next buffer goes.
    pub(crate) position: FilePosition,
    pub(crate) allocated: u64,
    /// The end of what was written.
    pub(crate) written: Offset,
    /// When the first record of the active segment was written, if there is one.
    pub(crate) active_since: Option<Timestamp>,
    pub(crate) checkpoint: CheckpointFile,
    /// Whether the checkpoint on disk says that the log is in use.
    pub(crate) is_dirty: bool,
    /// Whether garbage may be left that a clean mark would bring back to life.
    pub(crate) is_littered: bool,
    /// Whether compaction has changed names that are not durable yet, or left some that are to go.
    pub(crate) is_compacting: bool,
    /// How often compaction has put a file in the place of others.
    pub(crate) generation: u32,
    /// Up to here everything is durable.
    pub(crate) durable_point: ScanPoint,
    /// The file before the active one, if it may hold un-synced data.
    pub(crate) previous: Option<FileHandle>,
    /// Whether the active file's name is durable.
    pub(crate) is_name_synced: bool,
    pub(crate) next: Option<NewSegment>,
    pub(crate) unsealed: VecDeque<Unsealed>,
    /// Taken from staging and not (wholly) written: goes first.
    pub(crate) unwritten: Option<Box<StagedBuffer>>,
    pub(crate) unsynced_bytes: u64,
    pub(crate) unsynced_since: Option<Timestamp>,
    pub(crate) bytes_since_checkpoint: u64,
    pub(crate) last_write: Option<Timestamp>,
    /// Whether the disk space of this log is bounded together with that of others.
    pub(crate) is_budgeted: bool,
}

/// What a sync has to cover, taken while nobody writes.
#[derive(Debug)]
pub(crate) struct SyncPlan {
    pub(crate) previous: Option<FileHandle>,
    pub(crate) sync_names: bool,
    /// Absent if nothing was written to it since it was durable.
    pub(crate) active: Option<FileHandle>,
    pub(crate) base: Offset,
    pub(crate) point: ScanPoint,
    pub(crate) bytes: u64,
}

impl Writer {
    /// The checkpoint as it would be written now.
    pub(crate) fn checkpoint_now(&self, log: &Inner, is_dirty: bool) -> Checkpoint {
        Checkpoint {
            identity: log.identity,
            sequence: 0,
            is_dirty,
            epoch: self.header.epoch,
            log_start: log.ends.start(),
            durable: self.durable_point.offset,
            scan_base: self.durable_point.base,
            scan_position: self.durable_point.position,
            scan_offset: self.durable_point.offset,
            latest_append_time: log.staging().latest_append_time(),
            segment_names_crc: format::segment_names_checksum(
                log.segments.load().iter().map(|segment| segment.base),
            ),
            generation: self.generation,
        }
    }

    /// Makes the dirty flag durable, unless it is.
    #[inline]
    pub(crate) fn set_dirty(&mut self, log: &Inner) -> Result<()> {
        if self.is_dirty { Ok(()) } else { self.make_dirty(log) }
    }

    #[cold]
    fn make_dirty(&mut self, log: &Inner) -> Result<()> {
        if !is_planted(Mistake::LeaveCleanMark) {
            let file = log.sticky(self.checkpoint.open(log))?;
            // The names too: the process that made these files may have died before it could sync them.
            if !is_planted(Mistake::TrustNamesOfOthers) {
                log.sync_names()?;
            }
            // Dirty until proved clean: after an error nobody knows what the file says.
            self.is_dirty = true;
            let checkpoint = self.checkpoint_now(log, true);
            let written = self.checkpoint.write(&file, checkpoint);
            let synced = written.and_then(|()| match is_planted(Mistake::DirtyFlagNotSynced) {
                true => Ok(()),
                false => file.sync_data(),
            });
            synced.map_err(|error| log.fail(error))?;
        }
        Ok(())
    }

    /// Writes everything that is staged to the active segment.
    pub(crate) fn write_staged(&mut self, log: &Inner) -> Result<()> {
        log.failure.check()?;
        if self.unwritten.is_none() {
            let taken = log.staging().take();
            self.unwritten = taken.map(|buffer| self.finish(buffer, log));
        }
        while let Some(written) = self.write_one_buffer(log)? {
            let taken = {
                let mut staging = log.staging();
                staging.recycle(written);
                staging.take()
            };
            self.unwritten = taken.map(|buffer| self.finish(buffer, log));
            if self.unwritten.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Compresses a buffer that was taken and fills in what was not known before.
    fn finish(&self, mut buffer: Box<StagedBuffer>, log: &Inner) -> Box<StagedBuffer> {
        assert_eq!(buffer.position, self.position, "staged batches follow what was written");
        if buffer.wants_compression() {
            let saved_bytes = buffer.compress(&log.config.load());
            log.staging().move_back(saved_bytes);
        }
        buffer.finish(self.header.salt, log.ends.durable());
        buffer
    }

    /// Writes the buffer that was taken, if there is one, and returns it.
    fn write_one_buffer(&mut self, log: &Inner) -> Result<Option<Box<StagedBuffer>>> {
        log.failure.check()?;
        let Some(last) = self.unwritten.as_ref().and_then(|buffer| buffer.batches.last()) else {
            return Ok(None);
        };
        let (end, time) = (last.header.next_offset(), last.header.append_time);
        self.open_active(log)?;
        self.set_dirty(log)?;
        if is_planted(Mistake::PublishBeforeWriting) {
            log.publish_written(end);
        }
        let (Some(buffer), Some(file)) = (&self.unwritten, &self.file) else { return Ok(None) };
        // A full disk leaves the buffer here, to be written at the same place later; anything else is final.
        log.sticky(file.write_all_at(&buffer.bytes, buffer.position))?;
        let Some(buffer) = self.unwritten.take() else { return Ok(None) };

        let size = buffer.bytes.len() as u64;
        self.position = buffer.position.plus(size);
        let headers =
            buffer.batches.iter().map(|batch| (&batch.header, buffer.position.plus(batch.start as u64)));
        self.active.add_batches(headers, self.position);
        self.written = end;
        self.active_since.get_or_insert(time);
        self.unsynced_since.get_or_insert(time);
        self.last_write = Some(time);
        self.unsynced_bytes += size;
        if let Some(first) = buffer.batches.first() {
            let offsets = OffsetRange { start: first.header.base_offset, end };
            log.counters.note_write(buffer.batches.len(), offsets, size);
        }
        log.publish_written(end);
        Ok(Some(buffer))
    }

    /// The active segment's file, which was closed if it was not used for long.
    fn open_active(&mut self, log: &Inner) -> Result<&FileHandle> {
        log.usage.note();
        match &mut self.file {
            Some(file) => Ok(file),
            none => {
                let file = log.files.open(|| {
                    let file = log.storage.open_file(self.active.path(), OpenMode::ReadWrite)?;
                    match read_header(&*file) {
                        Ok((header, _)) if header == self.header => Ok(file),
                        Err(SegmentFault::Error(error)) => Err(error),
                        _ => {
                            let end = log.ends.written();
                            Err(self.active.corrupt(
                                FilePosition::ZERO,
                                end,
                                CorruptionKind::BadSegmentHeader,
                            ))
                        }
                    }
                });
                let file = none.insert(log.sticky(file)?);
                log.list_open();
                Ok(file)
            }
        }
    }

    /// Closes the files that are open for writing, once all of it is durable. False if that cannot be had now.
    pub(crate) fn let_go(&mut self, log: &Inner) -> bool {
        if self.file.is_none() {
            return true;
        }
        if log.is_closed() || log.failure.is_set() {
            (self.previous, self.next) = (None, None);
            self.unsealed.clear();
        } else {
            if self.unwritten.is_some() || log.sync_holding(self).is_err() {
                return false;
            }
            // What is rolled and has no footer yet is open too.
            if self.seal_rolled(log).is_err() || !self.unsealed.is_empty() {
                return false;
            }
            if let Some(next) = self.next.take() {
                let _ = next.discard(&log.storage, Error::Closed);
            }
        }
        self.file = None;
        self.active.forget_open();
        true
    }

    /// Whether space has to be asked for before it is taken up.
    fn is_limited(&self, config: &LogConfig) -> bool {
        self.is_budgeted || config.retention_hard_bytes.is_some()
    }

    /// Reserves space so that a batch can end at `end` of the active segment.
    pub(crate) fn allocate(&mut self, log: &Inner, end: u64) -> Result<()> {
        let config = log.config.load();
        let is_limited = self.is_limited(&config);
        if is_limited {
            // What was written without being reserved counts.
            self.allocated = self.allocated.max(self.position.get());
        }
        if (config.preallocate || is_limited) && end > self.allocated {
            // To four times what there is: each step has a few hundred slow syncs behind it.
            let step = (3 * self.allocated).clamp(FIRST_ALLOCATION_BYTES, LARGEST_ALLOCATION_STEP_BYTES);
            let planned = (self.allocated + step).min(u64::from(config.roll_bytes())).max(end);
            let planned = match is_limited {
                true => {
                    self.allocated + log.take_space(self, end - self.allocated, planned - self.allocated)?
                }
                false => planned,
            };
            let reserved = if config.preallocate { self.reserve(log, end, planned) } else { Ok(planned) };
            if let Ok(reserved) = reserved {
                self.allocated = reserved;
            }
            log.correct_space(self);
            reserved?;
            if config.preallocate {
                self.active.note_length(self.allocated);
            }
        }
        let room_end = self.room_end(&config);
        log.staging().set_room_end(room_end);
        Ok(())
    }

    /// Reserves space in the active segment's file up to `planned`, or at least up to `end`.
    fn reserve(&mut self, log: &Inner, end: u64, planned: u64) -> Result<u64> {
        let file = self.open_active(log)?;
        match file.allocate(planned) {
            // No room for a whole step; what is needed now may still fit.
            Err(Error::DiskFull { .. }) if planned > end => file.allocate(end).map(|()| end),
            reserved => reserved.map(|()| planned),
        }
    }

    /// Keeps space reserved behind the data, if that is configured and there is any: for those who come when there is none.
    pub(crate) fn keep_reserve(&mut self, log: &Inner, config: &LogConfig) {
        if config.reserve_bytes > 0 && self.is_dirty {
            let wanted = self.position.get() + u64::from(config.reserve_bytes);
            let wanted = wanted.min(u64::from(config.roll_bytes()));
            if wanted > self.allocated {
                // A full disk is why there is a reserve; what is left of it serves.
                let _ = self.allocate(log, wanted);
            }
        }
    }

    /// Up to where batches may be staged for the active segment.
    pub(crate) fn room_end(&self, config: &LogConfig) -> u64 {
        if config.preallocate || self.is_limited(config) { self.allocated } else { u64::MAX }
    }

    /// Whether the active segment holds batches, written or staged.
    pub(crate) fn is_active_empty(&self, log: &Inner) -> bool {
        self.position == SEGMENT_DATA_START && self.unwritten.is_none() && log.staging().is_empty()
    }

    /// Whether a roll must wait for a sync.
    pub(crate) fn is_roll_blocked(&self) -> bool {
        self.previous.is_some() || !self.is_name_synced
    }

    /// Makes the next segment ready: its file, space and header, synced under a temporary name.
    pub(crate) fn prepare_next(&mut self, log: &Inner) -> Result<()> {
        if self.next.is_none() {
            let header = new_header(log, self.header.epoch, self.header.epoch_start);
            let new = new_segment_file(log, NEXT_SEGMENT_NAME, header)?;
            new.sync().map_err(|error| new.discard(&log.storage, error))?;
            self.next = Some(new);
        }
        Ok(())
    }

    /// As [`Writer::prepare_next`], unless a limit of disk space leaves no room. Returns whether it was done.
    pub(crate) fn prepare_next_within_limits(&mut self, log: &Inner) -> Result<bool> {
        match self.take_space_for_next(log) {
            Err(Error::LogFull(_)) => return Ok(false),
            taken => taken?,
        }
        let prepared = self.prepare_next(log);
        log.correct_space(self);
        prepared.map(|()| true)
    }

    /// Takes the space that the next segment begins with, unless it is there.
    pub(crate) fn take_space_for_next(&self, log: &Inner) -> Result<()> {
        let config = log.config.load();
        if self.next.is_none() && self.is_limited(&config) {
            let bytes = first_allocation(&config);
            log.take_space(self, bytes, bytes)?;
        }
        Ok(())
    }

    /// Makes a new segment the active one. Everything staged is written to the old one first.
    ///
    /// The caller has made sure that [`Writer::is_roll_blocked`] is false.
    pub(crate) fn roll(&mut self, log: &Inner) -> Result<()> {
        assert!(!self.is_roll_blocked(), "at most two segments hold un-synced data");
        self.set_dirty(log)?;
        self.prepare_next(log)?;
        self.drain(log)?;
        let rolled = self.switch_to_next(log);
        if rolled.is_err() {
            let room_end = self.room_end(&log.config.load());
            log.staging().set_room_end(room_end);
        }
        rolled
    }

    /// Writes everything that is staged and takes the room away, so that nothing more is staged for this segment until
    /// staging has moved on or was given room again. Appends wait for the writer meanwhile.
    pub(crate) fn drain(&mut self, log: &Inner) -> Result<()> {
        loop {
            self.write_staged(log)?;
            let mut staging = log.staging();
            if staging.is_empty() {
                staging.set_room_end(0);
                return Ok(());
            }
        }
    }

    fn switch_to_next(&mut self, log: &Inner) -> Result<()> {
        let base = self.written;
        let rolled_file = Arc::clone(self.open_active(log)?);
        let Some(mut next) = self.next.take() else { return Ok(()) };
        if let Err(error) = next.publish(&log.storage, &log.directory, base) {
            return log.sticky(Err(next.discard(&log.storage, error)));
        }
        let (file, header, allocated) = (Arc::clone(&next.file), next.header, next.allocated);
        let segment = next.into_segment(
            &log.directory,
            base,
            log.config.load().read_mode,
            SEGMENT_DATA_START,
            NewSegment::empty_summary(base),
        );
        self.unsealed.push_back(Unsealed {
            segment: Arc::clone(&self.active),
            file: Arc::clone(&rolled_file),
            header: self.header,
            end: base,
            data_end: self.position,
        });
        // From now on it is a reader's, if anybody's.
        self.active.list_open(&log.files);
        self.previous = Some(rolled_file);
        self.file = Some(file);
        self.is_name_synced = false;
        self.header = header;
        self.active = Arc::clone(&segment);
        self.position = SEGMENT_DATA_START;
        self.allocated = allocated;
        self.active.note_length(allocated);
        self.active_since = None;
        log.segments.store(Arc::new(log.segments.load().with(segment)));
        log.correct_space(self);
        let mut staging = log.staging();
        let (next_offset, epoch) = (staging.next_offset(), self.header.epoch);
        staging.move_to(self.staging_place(&log.config.load()), next_offset, epoch);
        log.counters.rolls.fetch_add(1, Ordering::Relaxed);
        let (directory, segment_count) = (log.directory.display(), log.segments.load().len());
        tracing::debug!(%directory, base_offset = %base, segment_count, "rolled to a new segment");
        Ok(())
    }

    /// Where staging continues.
    pub(crate) fn staging_place(&self, config: &LogConfig) -> StagingPlace {
        StagingPlace {
            position: self.position,
            room_end: self.room_end(config),
            roll_at: u64::from(config.roll_bytes()),
        }
    }

    /// What a sync of everything written so far has to do; `None` if there is nothing.
    pub(crate) fn plan_sync(&mut self, log: &Inner) -> Option<SyncPlan> {
        if self.written <= log.ends.durable() && !self.is_roll_blocked() {
            return None;
        }
        assert!(
            self.file.is_some() || self.written <= log.ends.durable(),
            "what is written and not durable is open"
        );
        Some(SyncPlan {
            previous: self.previous.clone(),
            sync_names: !self.is_name_synced,
            active: self.file.clone(),
            base: self.active.base,
            point: ScanPoint { base: self.active.base, position: self.position, offset: self.written },
            bytes: std::mem::take(&mut self.unsynced_bytes),
        })
    }

    /// Notes that `plan` was carried out.
    pub(crate) fn finish_sync(&mut self, log: &Inner, plan: &SyncPlan) -> Result<()> {
        if self.active.base == plan.base {
            self.previous = None;
            self.is_name_synced = true;
        }
        self.durable_point = plan.point;
        if self.unsynced_bytes == 0 {
            self.unsynced_since = None;
        }
        self.bytes_since_checkpoint += plan.bytes;
        if self.is_dirty && self.bytes_since_checkpoint >= CHECKPOINT_INTERVAL_BYTES {
            self.advance_checkpoint(log)?;
        }
        Ok(())
    }

    /// Writes the present durable offset to the checkpoint, without a sync. That saves scanning and nothing else: what
    /// called for it is done, and does not fail because the disk is full.
    pub(crate) fn advance_checkpoint(&mut self, log: &Inner) -> Result<()> {
        self.bytes_since_checkpoint = 0;
        let checkpoint = self.checkpoint_now(log, self.is_dirty);
        let opened = self.checkpoint.open(log);
        match opened.and_then(|file| self.checkpoint.write(&file, checkpoint)) {
            Err(Error::DiskFull { .. }) => Ok(()),
            Err(error) if error.is_out_of_files() => Ok(()),
            written => log.sticky(written),
        }
    }

    /// Writes the footers of rolled segments that are wholly durable. Returns how many.
    pub(crate) fn seal_rolled(&mut self, log: &Inner) -> Result<usize> {
        let mut sealed = 0;
        while let Some(unsealed) = self.unsealed.front() {
            let is_durable = unsealed.end <= log.ends.durable()
                && (unsealed.end < self.active.base || !self.is_roll_blocked());
            if !is_durable && !is_planted(Mistake::FooterBeforeSync) {
                break;
            }
            seal(log, unsealed)?;
            self.unsealed.pop_front();
            sealed += 1;
        }
        if sealed > 0 {
            log.correct_space(self);
        }
        Ok(sealed)
    }
}

/// Writes the footer of a durable segment and cuts the space reserved behind it.
///
/// The file is cut first, to where the footer will end: then one sync covers both, and whatever a power cut leaves of
/// them is a segment without a footer, which is rebuilt when it is needed.
fn seal(log: &Inner, unsealed: &Unsealed) -> Result<()> {
    let summary = unsealed.segment.summary(&log.segment_context(unsealed.end))?;
    if summary.next_offset != unsealed.end {
        // Damaged since it was written: a footer would hide that.
        tracing::warn!(segment = %unsealed.segment.path().display(), "not sealed: its batches do not verify");
        return Ok(());
    }
    let footer = Footer { summary, producers: Vec::new(), aborted: Vec::new() };
    let place = format::BatchPlace { salt: unsealed.header.salt, position: unsealed.data_end };
    let bytes = footer.encode(unsealed.segment.base, place);
    let length = unsealed.data_end.get() + bytes.len() as u64;
    let written = unsealed
        .file
        .set_length(length)
        .inspect(|()| unsealed.segment.note_length(length))
        .and_then(|()| unsealed.file.write_all_at(&bytes, unsealed.data_end))
        .and_then(|()| unsealed.file.sync_all());
    log.sticky(written)
}

/// A header for a new segment of this log.
pub(crate) fn new_header(log: &Inner, epoch: LogEpoch, epoch_start: Offset) -> SegmentHeader {
    SegmentHeader {
        identity: log.identity,
        epoch,
        epoch_start,
        salt: log.storage.random(),
        created: log.now(),
        compacted: None,
    }
}

/// How much space a new segment begins with, in bytes.
fn first_allocation(config: &LogConfig) -> u64 {
    FIRST_ALLOCATION_BYTES.max(config.reserve_bytes.into()).min(config.roll_bytes().into())
}

/// Makes a file for a new segment under a temporary name, with the first step of space reserved.
pub(crate) fn new_segment_file(log: &Inner, name: &str, header: SegmentHeader) -> Result<NewSegment> {
    let config = log.config.load();
    let allocate = config.preallocate.then(|| first_allocation(&config));
    NewSegment::create(&log.storage, &log.directory.join(name), header, allocate)
}

impl Inner {
    /// Writes what is staged. With a deadline it does nothing if others write for that long.
    pub(crate) fn write_staged(&self, deadline: Option<Instant>) -> Result<()> {
        match self.writer()?.take_until(deadline) {
            Some(mut writer) => writer.write_staged(self),
            None => Ok(()),
        }
    }

    /// Writes and syncs everything staged so far, and publishes the durable offset.
    pub(crate) fn sync_leading(&self, leader: &super::commit::Leader<'_>) -> Result<Offset> {
        self.sync_after(leader, |writer| writer.write_staged(self))
    }

    /// As [`Inner::sync_leading`]; where there is no room for what is staged, that stays staged, and the rest is synced.
    pub(crate) fn sync_what_has_room(&self, leader: &super::commit::Leader<'_>) -> Result<Offset> {
        self.sync_after(leader, |writer| match writer.write_staged(self) {
            Err(Error::DiskFull { .. }) => Ok(()),
            written => written,
        })
    }

    fn sync_after(
        &self,
        _leader: &super::commit::Leader<'_>,
        write: impl FnOnce(&mut Writer) -> Result<()>,
    ) -> Result<Offset> {
        let slot = self.writer()?;
        let plan = {
            let mut writer = slot.take();
            write(&mut writer)?;
            writer.plan_sync(self)
        };
        let Some(plan) = plan else { return Ok(self.ends.durable()) };
        self.carry_out(&plan)?;
        slot.take().finish_sync(self, &plan)?;
        Ok(plan.point.offset)
    }

    /// Makes durable what was written, with the writer in hand.
    pub(crate) fn sync_holding(&self, writer: &mut Writer) -> Result<()> {
        match writer.plan_sync(self) {
            None => Ok(()),
            Some(plan) => self.carry_out(&plan).and_then(|()| writer.finish_sync(self, &plan)),
        }
    }

    /// Syncs what `plan` names and publishes the durable offset.
    fn carry_out(&self, plan: &SyncPlan) -> Result<()> {
        self.failure.check()?;
        let start = Instant::now();
        let is_small = plan.bytes < 400 && is_planted(Mistake::SkipSmallSyncs);
        // In this order: the older file, the newer one's name, the newer one. The durable offset passes a segment's
        // end only when the next one can be found.
        if let Some(previous) = &plan.previous
            && !is_planted(Mistake::ForgetPreviousSegment)
        {
            self.sync_or_fail(|| previous.sync_data())?;
        }
        if plan.sync_names && !is_planted(Mistake::ForgetNameOfNewSegment) {
            self.sync_names()?;
        }
        if let Some(active) = &plan.active
            && plan.point.position > SEGMENT_DATA_START
            && plan.point.offset > plan.base
            && !is_small
        {
            self.sync_or_fail(|| active.sync_data())?;
        }
        self.note_sync(start.elapsed());
        self.failure.check()?;
        self.publish_durable(match is_planted(Mistake::AcknowledgeWhatIsStaged) {
            true => self.log_end_offset(),
            false => plan.point.offset,
        });
        Ok(())
    }

    /// Makes the names in the log's directory durable.
    pub(crate) fn sync_names(&self) -> Result<()> {
        let sync = || self.files.open(|| self.storage.sync_directory(&self.directory));
        match sync() {
            // It was not tried, since the directory could not be opened.
            Err(error) if error.is_out_of_files() => Err(error),
            synced => self.sync_or_fail_from(synced, sync),
        }
    }

    /// A failed sync is final, whatever the error: what it dropped never becomes durable by trying again.
    fn sync_or_fail(&self, sync: impl Fn() -> Result<()>) -> Result<()> {
        self.sync_or_fail_from(sync(), sync)
    }

    fn sync_or_fail_from(&self, mut synced: Result<()>, sync: impl Fn() -> Result<()>) -> Result<()> {
        if is_planted(Mistake::RetryFailedSync) {
            synced = synced.or_else(|_| sync());
        }
        match synced {
            Err(_) if is_planted(Mistake::ForgetFailedSync) => Ok(()),
            synced => synced.map_err(|error| self.fail(error)),
        }
    }
}
