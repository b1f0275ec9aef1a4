//! A data directory to run the command on, and records read back without it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod system;
pub mod waves;

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;

use assert_cmd::Command;
use tailwater_log::storage::{Disk, Storage};
use tailwater_log::{FetchIsolation, FetchLimits, Log, LogOptions, Offset, SegmentInspection};

/// Of a record.
pub type KeyAndValue = (Option<Vec<u8>>, Option<Vec<u8>>);

/// A directory for one test.
pub struct Data {
    pub root: tempfile::TempDir,
}

/// What a run printed, and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Data {
    pub fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// One on the disk that the build is on: that of temporary files may be in memory.
    pub fn on_disk() -> Self {
        let there = std::fs::canonicalize(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self { root: tempfile::tempdir_in(there).unwrap() }
    }

    /// One on the disk that begins as a copy of `template`.
    pub fn copy_of(template: &Path) -> Self {
        let data = Self::on_disk();
        system::copy_tree(template, &data.path());
        data
    }

    /// The first segment of a partition.
    pub fn segment(&self, partition: &str) -> PathBuf {
        self.path().join(partition).join("00000000000000000000.log")
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tailwater"));
        command.env_remove("TAILWATER_DATA").env_remove("COLUMNS");
        command.arg("--data").arg(self.path()).args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, b"")
    }

    pub fn run_with(&self, arguments: &[&str], input: &[u8]) -> Ran {
        ran(self.command(arguments).write_stdin(input))
    }

    /// Runs it and expects success and nothing on standard error. Returns standard output.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.ok_with(arguments, b"")
    }

    #[track_caller]
    pub fn ok_with(&self, arguments: &[&str], input: &[u8]) -> String {
        let ran = self.run_with(arguments, input);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{arguments:?}");
        ran.stdout
    }

    /// Runs it and expects this exit code and a message with these parts. Returns standard error.
    #[track_caller]
    pub fn fails(&self, code: i32, parts: &[&str], arguments: &[&str]) -> String {
        self.fails_with(code, parts, arguments, b"")
    }

    #[track_caller]
    pub fn fails_with(&self, code: i32, parts: &[&str], arguments: &[&str], input: &[u8]) -> String {
        let ran = self.run_with(arguments, input);
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
        assert!(ran.stderr.starts_with("error: ") || ran.stderr.contains("\nerror: "), "{ran:?}");
        for part in parts {
            assert!(ran.stderr.contains(part), "no {part:?} in {ran:?}");
        }
        ran.stderr
    }

    /// Starts it with pipes to all three streams.
    pub fn start(&self, arguments: &[&str]) -> Child {
        std::process::Command::new(assert_cmd::cargo::cargo_bin!("tailwater"))
            .env_remove("TAILWATER_DATA")
            .arg("--data")
            .arg(self.path())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// All records of a partition, read through the log crate: key and value.
    pub fn records(&self, partition: &str) -> Vec<KeyAndValue> {
        let mut all = Vec::new();
        self.for_each_record(partition, |record| {
            all.push((record.key().map(<[u8]>::to_vec), record.value().map(<[u8]>::to_vec)));
        });
        all
    }

    pub fn values(&self, partition: &str) -> Vec<Vec<u8>> {
        self.records(partition).into_iter().map(|(_, value)| value.unwrap()).collect()
    }

    pub fn for_each_record(&self, partition: &str, see: impl FnMut(&tailwater_log::Record<'_>)) {
        self.for_each_record_from(partition, Offset::ZERO, see);
    }

    pub fn for_each_record_from(
        &self,
        partition: &str,
        from: Offset,
        mut see: impl FnMut(&tailwater_log::Record<'_>),
    ) {
        let storage: Arc<dyn Storage> = Arc::new(Disk);
        let directory = self.path().join(partition);
        let any = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
        let any = any.into_iter().find(|path| path.extension().is_some_and(|is| is == "log")).unwrap();
        let identity = SegmentInspection::open(&storage, &any).unwrap().header().identity;
        let log = Log::attach_read_only(storage, &directory, LogOptions::new(identity)).unwrap();
        let mut at = from.max(log.log_start_offset());
        loop {
            let fetched = log.fetch(at, FetchLimits::default(), FetchIsolation::Visible, None).unwrap();
            fetched.iter().for_each(|record| see(&record));
            if fetched.next_offset() == at {
                return;
            }
            at = fetched.next_offset();
        }
    }
}

pub fn ran(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
}

/// Changes one bit of a file.
pub fn damage(file: &Path, position: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[position] ^= 0x40;
    std::fs::write(file, bytes).unwrap();
}

/// What a table says in its lines, one word a column.
pub fn table(text: &str) -> Vec<Vec<String>> {
    text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

/// A value, or the whole, of what `--json` printed.
pub fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}
