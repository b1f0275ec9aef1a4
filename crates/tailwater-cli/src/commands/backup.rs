//! `backup`: copies the directory, also while another process writes to it.

use serde::Serialize;
use tailwater::{BackupOptions, BackupReport};

use crate::args::BackupArgs;
use crate::directory::{Directory, close, embedded};
use crate::exit::Result;
use crate::output::{print, print_json};

#[derive(Serialize)]
struct Made {
    directory: String,
    partitions: u64,
    files: u64,
    size_bytes: u64,
    linked_files: u64,
    reused_files: u64,
    copied_bytes: u64,
}

pub(crate) fn run(directory: &Directory, json: bool, args: &BackupArgs) -> Result<()> {
    let broker = directory.read_now()?;
    let mut options = BackupOptions::new().copy_all(args.copy);
    if let Some(earlier) = &args.incremental_from {
        options = options.incremental_from(earlier);
    }
    let made = embedded(&broker)?.backup_with(&args.directory, &options);
    // A broker that was opened for it is closed in order, whatever came of the backup.
    let closed = close(&broker);
    let report = made?;
    closed?;
    show(json, args, &report)
}

fn show(json: bool, args: &BackupArgs, report: &BackupReport) -> Result<()> {
    let made = Made {
        directory: args.directory.display().to_string(),
        partitions: report.partitions,
        files: report.files,
        size_bytes: report.size_bytes,
        linked_files: report.linked_files,
        reused_files: report.reused_files,
        copied_bytes: report.copied_bytes,
    };
    if json {
        return print_json(&made);
    }
    print(&format!(
        "{}: {} partitions in {} files of {} bytes; {} of them linked, {} of these from the earlier backup; {} bytes copied",
        made.directory,
        made.partitions,
        made.files,
        made.size_bytes,
        made.linked_files,
        made.reused_files,
        made.copied_bytes
    ))
}
