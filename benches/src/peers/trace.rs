//! What a durable append asks of the operating system, as `strace` sees it: whether "durable" is.

use std::path::Path;
use std::process::{Command, Stdio};

use tailwater_log::Durability;

use crate::contest::{Result, Scale};
use crate::peer::{PeerKind, Workload};
use crate::subject;

/// In the environment of a process that is traced: whose appends it makes.
const CHILD_PEER: &str = "TAILWATER_BENCH_TRACED";
/// In the environment of that process: the directory it makes them in.
const CHILD_DIRECTORY: &str = "TAILWATER_BENCH_TRACED_DIRECTORY";
/// Made in the child's directory between its opening and its appends, and again behind them: a mark in the trace.
const MARK: &str = "mark-in-the-trace";
const APPENDS: usize = 20;
const CALLS: [&str; 5] = ["fdatasync", "fsync", "msync", "sync_file_range", "syncfs"];

/// A table of the calls that 20 durable appends of one thread made, for Tailwater and the crates that take part.
///
/// # Errors
///
/// If a traced process fails.
pub fn table(scale: &Scale) -> Result<String> {
    let mut out = format!(
        "\n## What {APPENDS} durable appends of one thread asked of the operating system\n\n\
         | | {} | said to be |\n|---|---|---|---|---|---|---|\n",
        CALLS.join(" | "),
    );
    let tailwater = ("tailwater", "`fdatasync`, shared by those who wait");
    let peers = crate::peers::all().into_iter();
    let taking_part: Vec<PeerKind> = peers
        .filter(|kind| {
            kind.workloads.contains(&Workload::Durable) && scale.peers.iter().any(|name| name == kind.name)
        })
        .collect();
    for (name, said) in
        std::iter::once(tailwater).chain(taking_part.iter().map(|kind| (kind.name, kind.synced)))
    {
        let counts = match count(name, scale)? {
            Some(counts) => counts.map(|count| count.to_string()),
            None => CALLS.map(|_| "not traced".to_owned()),
        };
        out.push_str(&format!("| {name} | {} | {said} |\n", counts.join(" | ")));
    }
    Ok(out)
}

/// How often each of [`CALLS`] was made, or `None` where there is no `strace`.
fn count(name: &str, scale: &Scale) -> Result<Option<[usize; CALLS.len()]>> {
    let directory = scale.directory()?;
    let trace = directory.path().join("trace");
    let status = Command::new("strace")
        .args(["-f", "-qq", "-e", "signal=none", "-o"])
        .arg(&trace)
        .arg("-e")
        .arg(format!("trace={},mkdir,mkdirat", CALLS.join(",")))
        .arg(std::env::current_exe()?)
        .env(CHILD_PEER, name)
        .env(CHILD_DIRECTORY, directory.path())
        .stdout(Stdio::null())
        .status();
    match status {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
        Ok(status) if !status.success() => return Err(format!("traced {name}: {status}").into()),
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(&trace)?;
    let between = text.split(MARK).nth(1).ok_or("the trace lacks the mark")?;
    Ok(Some(CALLS.map(|call| between.matches(&format!(" {call}(")).count())))
}

/// If this process was started to be traced: makes the appends and ends. Called first in `main`.
///
/// # Errors
///
/// Those of the crate that is traced.
pub fn append_if_asked() -> Result<()> {
    let (Ok(name), Some(directory)) = (std::env::var(CHILD_PEER), std::env::var_os(CHILD_DIRECTORY)) else {
        return Ok(());
    };
    let directory = Path::new(&directory);
    let value = crate::rows::value(crate::rows::VALUE_BYTES);
    let log;
    let peer;
    let append: &dyn Fn() -> Result<()> = if name == "tailwater" {
        log = subject::create(directory, Durability::Durable)?;
        &|| Ok(subject::append(&log, &value)?)
    } else {
        let kind = crate::peers::all().into_iter().find(|kind| kind.name == name);
        peer = (kind.ok_or_else(|| format!("there is no crate {name:?}"))?.open)(directory, 64 << 20)?;
        &|| peer.append_durable(&value)
    };
    // The first append may make things that later ones find.
    append()?;
    std::fs::create_dir(directory.join(MARK))?;
    (0..APPENDS).try_for_each(|_| append())?;
    std::fs::create_dir(directory.join(format!("{MARK}-again")))?;
    std::process::exit(0)
}
