//! `dump`: what a segment file holds, batch by batch, also when it is damaged.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use tailwater::storage::{Disk, Storage};
use tailwater_cli::time::show_time;
use tailwater_log::format::{BatchHeader, Footer, HeaderCopies};
use tailwater_log::{Compression, FilePosition, Offset, SegmentInspection, SegmentPart};

use crate::args::DumpArgs;
use crate::exit::{Failure, Result};
use crate::output::Output;

/// A line of the dump.
#[derive(Serialize)]
#[serde(tag = "part", rename_all = "snake_case")]
enum Line {
    Segment {
        file: String,
        file_bytes: u64,
        topic_id: String,
        partition: u32,
        base_offset: Option<u64>,
        epoch: u32,
        epoch_start: u64,
        created: i64,
        header_copies: &'static str,
    },
    Batch {
        position: u64,
        size_bytes: u32,
        base_offset: u64,
        next_offset: u64,
        records: u32,
        epoch: u32,
        created: i64,
        appended: i64,
        attributes: String,
        /// Of a compressed body.
        #[serde(skip_serializing_if = "Option::is_none")]
        uncompressed_bytes: Option<u32>,
        /// What is wrong in it although its checksum is right.
        #[serde(skip_serializing_if = "Option::is_none")]
        damage: Option<String>,
    },
    Damage {
        position: u64,
        size_bytes: u64,
        what: String,
        /// Of the batch that should be here, where its header can be read.
        #[serde(skip_serializing_if = "Option::is_none")]
        base_offset: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next_offset: Option<u64>,
    },
    Unsupported {
        position: u64,
        size_bytes: u64,
        needs: String,
    },
    Unwritten {
        position: u64,
        size_bytes: u64,
    },
    Footer {
        position: u64,
        base_offset: u64,
        next_offset: u64,
        batches: u64,
        records: u64,
        index_entries: usize,
    },
}

pub(crate) fn run(json: bool, args: &DumpArgs) -> Result<()> {
    let storage: Arc<dyn Storage> = Arc::new(Disk);
    let inspection = SegmentInspection::open(&storage, &args.file).map_err(|error| match error {
        tailwater_log::Error::Corrupt(_) if !has_name_of_segment(&args.file) => Failure::failed(format!(
            "{} is no segment file, or has neither its name nor a header that can be read: segment files are those in the \
             directory of a partition, named as 00000000000000000000.log",
            args.file.display()
        )),
        error => error.into(),
    })?;
    let mut dump =
        Dump { output: Output::new(), json, first_damage: None, mark: Offset::ZERO, next: Offset::ZERO };
    dump.show(&segment_line(&args.file, &inspection))?;
    if !json {
        dump.output.line(&format!(
            "{:>12} {:>10} {:>22} {:>8} {:>6}  {:<24}  ATTRIBUTES",
            "POSITION", "BYTES", "OFFSETS", "RECORDS", "EPOCH", "APPENDED"
        ))?;
    }
    for part in inspection.parts() {
        dump.part(part?)?;
    }
    if let Some((footer, position)) = inspection.footer() {
        dump.show(&footer_line(footer, position))?;
        dump.mark = Offset::MAX;
    }
    dump.finish(&args.file)
}

/// Whether a file is named as segments are: twenty digits and `.log`.
fn has_name_of_segment(file: &Path) -> bool {
    let is_base = |stem: &OsStr| stem.len() == 20 && stem.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    file.extension() == Some(OsStr::new("log")) && file.file_stem().is_some_and(is_base)
}

struct Dump {
    output: Output,
    json: bool,
    /// The position of the first damage, and the offset that it cannot lie below.
    first_damage: Option<(FilePosition, Offset)>,
    /// Below this everything was durable: later batches, or the footer, say so.
    mark: Offset,
    /// Where the last good batch ends.
    next: Offset,
}

impl Dump {
    fn part(&mut self, part: SegmentPart) -> Result<()> {
        let line = match part {
            SegmentPart::Batch { position, header, uncompressed_bytes, fault } => {
                self.mark = self.mark.max(header.durable_mark());
                self.next = header.next_offset();
                if fault.is_some() {
                    // A checksum that is right over such a body: this is no torn write.
                    self.damaged(position, Offset::ZERO);
                    self.mark = self.mark.max(Offset::new(1));
                }
                let damage = fault.map(|kind| kind.to_string());
                batch_line(position, &header, uncompressed_bytes, damage)
            }
            SegmentPart::Damage { position, size_bytes, header, kind } => {
                self.damaged(position, self.next);
                Line::Damage {
                    position: position.get(),
                    size_bytes,
                    what: kind.to_string(),
                    base_offset: header.map(|header| header.base_offset.get()),
                    next_offset: header.map(|header| header.next_offset().get()),
                }
            }
            SegmentPart::Unsupported { position, size_bytes, feature } => {
                Line::Unsupported { position: position.get(), size_bytes, needs: feature.to_string() }
            }
            SegmentPart::Unwritten { position, size_bytes } => {
                Line::Unwritten { position: position.get(), size_bytes }
            }
            _ => return Ok(()),
        };
        self.show(&line)
    }

    fn damaged(&mut self, position: FilePosition, offset: Offset) {
        self.first_damage.get_or_insert((position, offset));
    }

    fn show(&mut self, line: &Line) -> Result<()> {
        if self.json { self.output.json_line(line) } else { self.output.line(&text_of(line)) }
    }

    fn finish(mut self, file: &Path) -> Result<()> {
        let shown = self.output.flush();
        match self.first_damage {
            // What was never known to be durable may be what a crash left.
            Some((position, offset)) if offset < self.mark => Err(Failure::corrupt(format!(
                "{} is damaged from position {position} on, and what was there was durable",
                file.display()
            ))),
            _ => shown,
        }
    }
}

fn segment_line(file: &Path, inspection: &SegmentInspection) -> Line {
    let header = inspection.header();
    Line::Segment {
        file: file.display().to_string(),
        file_bytes: inspection.file_bytes(),
        topic_id: header.identity.topic_id.to_string(),
        partition: header.identity.partition.get(),
        base_offset: inspection.base_offset().map(Offset::get),
        epoch: header.epoch.get(),
        epoch_start: header.epoch_start.get(),
        created: header.created.as_millis(),
        header_copies: match inspection.header_copies() {
            HeaderCopies::Both => "both",
            HeaderCopies::OnlyFirst => "only the first",
            HeaderCopies::OnlySecond => "only the second",
        },
    }
}

fn batch_line(
    position: FilePosition,
    header: &BatchHeader,
    uncompressed_bytes: Option<u32>,
    damage: Option<String>,
) -> Line {
    Line::Batch {
        position: position.get(),
        size_bytes: header.length_bytes,
        base_offset: header.base_offset.get(),
        next_offset: header.next_offset().get(),
        records: header.record_count,
        epoch: header.log_epoch.get(),
        created: header.base_create_time.as_millis(),
        appended: header.append_time.as_millis(),
        attributes: attributes_of(header),
        uncompressed_bytes,
        damage,
    }
}

fn attributes_of(header: &BatchHeader) -> String {
    let attributes = header.attributes;
    let compression = match attributes.compression() {
        Compression::None => None,
        compression => Some(compression.name()),
    };
    let flags = [
        (attributes.is_transactional(), "transactional"),
        (attributes.is_control(), "control"),
        (attributes.has_producer(), "producer"),
        (attributes.is_encrypted(), "encrypted"),
        (attributes.is_opaque(), "opaque"),
    ];
    let flags = flags.into_iter().filter_map(|(is_set, name)| is_set.then_some(name));
    compression.into_iter().chain(flags).collect::<Vec<_>>().join(",")
}

fn footer_line(footer: &Footer, position: FilePosition) -> Line {
    let summary = &footer.summary;
    Line::Footer {
        position: position.get(),
        base_offset: summary.first_offset.get(),
        next_offset: summary.next_offset.get(),
        batches: summary.batch_count,
        records: summary.record_count,
        index_entries: summary.index.len(),
    }
}

fn text_of(line: &Line) -> String {
    let time = |ms: i64| show_time(tailwater::Timestamp::from_millis(ms));
    match line {
        Line::Segment {
            file,
            file_bytes,
            topic_id,
            partition,
            base_offset,
            epoch,
            epoch_start,
            created,
            header_copies,
        } => {
            let base = base_offset.map_or("unknown".to_owned(), |base| base.to_string());
            format!(
                "file:     {file}, {file_bytes} bytes\n\
                 segment:  partition {partition} of topic {topic_id}, base offset {base}\n\
                 epoch:    {epoch}, from offset {epoch_start}\n\
                 created:  {}\n\
                 header:   {header_copies} of its two copies verify\n",
                time(*created)
            )
            .replace("both of its two copies", "both copies")
        }
        Line::Batch {
            position,
            size_bytes,
            base_offset,
            next_offset,
            records,
            epoch,
            appended,
            attributes,
            uncompressed_bytes,
            damage,
            ..
        } => {
            let offsets = format!("[{base_offset}, {next_offset})");
            let mut attributes = attributes.clone();
            if let Some(bytes) = uncompressed_bytes {
                attributes = format!("{attributes} of {bytes} bytes");
            }
            if let Some(what) = damage {
                attributes = format!("{attributes} DAMAGED: {what}");
            }
            let shown = format!(
                "{position:>12} {size_bytes:>10} {offsets:>22} {records:>8} {epoch:>6}  {:<24}  {attributes}",
                time(*appended)
            );
            shown.trim_end().to_owned()
        }
        Line::Damage { position, size_bytes, what, base_offset, next_offset } => {
            let offsets = match (base_offset, next_offset) {
                (Some(base), Some(next)) => format!("[{base}, {next})"),
                _ => "?".to_owned(),
            };
            format!("{position:>12} {size_bytes:>10} {offsets:>22}  DAMAGED: {what}")
        }
        Line::Unsupported { position, size_bytes, needs } => {
            format!("{position:>12} {size_bytes:>10} {:>22}  needs {needs}", "?")
        }
        Line::Unwritten { position, size_bytes } => {
            format!("{position:>12} {size_bytes:>10}  not written yet")
        }
        Line::Footer { position, base_offset, next_offset, batches, records, index_entries } => format!(
            "{position:>12}  footer: offsets [{base_offset}, {next_offset}), {batches} batches, {records} records, \
             {index_entries} index entries"
        ),
    }
}
