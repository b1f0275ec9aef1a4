//! `export`: the records of a topic, to standard output or to a file that is there whole or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::consume::{Printer, print_to};
use crate::args::{ConsumeArgs, ExportArgs};
use crate::directory::Directory;
use crate::exit::{Failure, Result};
use crate::output::{Output, progress_of_records};

pub(crate) fn run(directory: &Directory, args: ExportArgs) -> Result<()> {
    let ExportArgs { topic, partitions, from, until, output } = args;
    let args =
        ConsumeArgs { topics: vec![topic], partitions, from, until, expired: true, ..ConsumeArgs::default() };
    let print = |output| print_to(directory, &args, Printer::json_lines(), output, progress_of_records);
    match output {
        None => print(Output::new()),
        Some(path) => write_whole(&path, print),
    }
}

/// Has a file filled under another name, and gives it its name once it is on disk.
fn write_whole(path: &Path, fill: impl FnOnce(Output) -> Result<()>) -> Result<()> {
    let name = path.display().to_string();
    let cannot = |error: io::Error| Failure::failed(format!("cannot write {name}: {error}"));
    // A device or a pipe is written to as it is.
    if fs::metadata(path).is_ok_and(|known| !known.is_file() && !known.is_dir()) {
        return fill(Output::to_file(File::options().write(true).open(path).map_err(cannot)?, name));
    }
    let partial =
        partial_name(path).ok_or_else(|| Failure::failed(format!("{name} is no name of a file")))?;
    let file = File::create(&partial).map_err(cannot)?;
    let filled = file.try_clone().map_err(cannot).and_then(|copy| fill(Output::to_file(copy, name.clone())));
    let done = filled.and_then(|()| {
        file.sync_all().map_err(cannot)?;
        fs::rename(&partial, path).map_err(cannot)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new("."))).and_then(|it| it.sync_all()).map_err(cannot)
    });
    if done.is_err() {
        // Why it failed is what is told.
        let _ = fs::remove_file(&partial);
    }
    done
}

/// What a file is called until it is whole.
fn partial_name(path: &Path) -> Option<PathBuf> {
    let mut name = path.file_name()?.to_owned();
    name.push(".partial");
    Some(path.with_file_name(name))
}
