//! The child, as its parent sees it.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use tailwater_benches::contest::Result;

use crate::journal::Journal;

/// Time in which a child has to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(60);

/// A child at work.
#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
    lines: Receiver<String>,
}

/// What a child takes up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Memory of its own, without files that are mapped.
    pub(crate) memory_bytes: u64,
    pub(crate) descriptors: u64,
}

impl Child {
    /// Starts a child, which first looks for what the journal holds.
    pub(crate) fn start(data: PathBuf, disk: u64, rate: u64, journal: &Journal) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("work")
            .arg(data)
            .args([disk.to_string(), rate.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(stdin), Some(stdout)) = (&mut process.stdin, process.stdout.take()) else {
            return Err("a child without pipes".into());
        };
        // It reads them all before it does anything else.
        writeln!(stdin, "{}go", journal.lines())?;
        stdin.flush()?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // The last line of a child that was killed may be half of one.
            let mut reader = BufReader::new(stdout);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|count| count > 0) && line.ends_with('\n') {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { process, lines })
    }

    /// Takes down what the child says until then.
    pub(crate) fn listen(&mut self, journal: &mut Journal, until: Instant) -> Result<()> {
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => journal.note(&line)?,
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("a child ended by itself: {}", self.process.wait()?).into());
                }
            }
        }
    }

    /// What it takes up now.
    pub(crate) fn sample(&self) -> Result<Sample> {
        let proc = format!("/proc/{}", self.process.id());
        let status = std::fs::read_to_string(format!("{proc}/status"))?;
        let field = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib: u64 = field.and_then(|field| field.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        let descriptors = std::fs::read_dir(format!("{proc}/fd"))?.count() as u64;
        Ok(Sample { memory_bytes: kib << 10, descriptors })
    }

    /// Kills it, and takes down what it had said by then.
    pub(crate) fn kill(mut self, journal: &mut Journal) -> Result<()> {
        self.process.kill()?;
        let status = self.process.wait()?;
        if status.code().is_some() {
            return Err(format!("a child ended by itself: {status}").into());
        }
        self.lines.iter().try_for_each(|line| journal.note(&line))
    }

    /// Tells it to end, which it has to do in order.
    pub(crate) fn finish(mut self, journal: &mut Journal) -> Result<()> {
        drop(self.process.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            journal.note(&line)?;
        }
        match self.process.try_wait()? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("a child failed: {status}").into()),
            None => {
                // Its pipe was closed, so it is about to be gone.
                let status = self.process.wait()?;
                if status.success() { Ok(()) } else { Err(format!("a child failed: {status}").into()) }
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Where the parent gave up; one that has ended is no concern.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
