//! What tests with a real kernel need: system calls that fail or kill, private mounts, the look of a directory.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Says that a test, or a part of it, could not run.
pub fn skipped(what: &str, why: &str) {
    note(&format!("skipped: {what}: {why}"));
}

/// Says how much a test did. The harness shows only what failed tests print by `eprintln`, so this goes past it.
pub fn note(what: &str) {
    std::io::stderr().write_all(format!("{what}\n").as_bytes()).unwrap();
}

/// A system call that a traced program made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TracedCall {
    pub name: String,
    /// The how manieth of its name in its thread, from 1 on: `when=` counts in each thread on its own.
    pub ordinal: u32,
    /// The first file it is about, as an absolute path.
    pub path: Option<PathBuf>,
    pub is_injected: bool,
}

/// How a system call is tampered with: what `strace -e inject=` takes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Injection {
    pub call: &'static str,
    /// `error=EIO` or `signal=KILL`.
    pub what: &'static str,
    pub ordinal: u32,
    /// Whether all later ones are meant too.
    pub is_for_ever: bool,
}

impl std::fmt::Display for Injection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let more = if self.is_for_ever { "+" } else { "" };
        write!(f, "{}:{}:when={}{more}", self.call, self.what, self.ordinal)
    }
}

/// Why nothing can be traced here; `None` if it can be.
pub fn why_not_traced() -> Option<String> {
    let tried = Command::new("strace")
        .args(["-f", "-qq", "--seccomp-bpf", "-y", "-o", "/dev/null", "-e", "trace=openat"])
        .args(["-e", "inject=openat:error=EIO:when=99", "true"])
        .output();
    match tried {
        Err(error) => Some(format!("cannot run strace: {error}")),
        Ok(output) if !output.status.success() => {
            Some(format!("strace may not trace: {}", String::from_utf8_lossy(&output.stderr).trim_end()))
        }
        Ok(_) => None,
    }
}

/// Has `command` run under `strace`, which writes `calls` to `trace`.
///
/// `strace` ends as the program did, by the same signal. A signal comes when its call is done.
pub fn traced(command: &Command, calls: &str, injection: Option<&Injection>, trace: &Path) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-y", "-e", "signal=none", "-o"]).arg(trace);
    if injection.is_none_or(|injection| injection.what.starts_with("error=")) {
        // All other calls go at full speed. No signal is delivered this way.
        strace.arg("--seccomp-bpf");
    }
    strace.arg("-e").arg(format!("trace={calls}"));
    if let Some(injection) = injection {
        strace.arg("-e").arg(format!("inject={injection}"));
    }
    strace.arg("--").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    strace
}

/// The calls of a trace, in the order of their beginnings.
pub fn parse_trace(trace: &Path) -> Vec<TracedCall> {
    let text = String::from_utf8_lossy(&std::fs::read(trace).unwrap()).into_owned();
    let mut calls: Vec<TracedCall> = Vec::new();
    let mut counts: HashMap<(&str, &str), u32> = HashMap::new();
    let mut unfinished: HashMap<&str, usize> = HashMap::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(char::is_whitespace) else { continue };
        let rest = rest.trim_start();
        let is_injected = rest.contains("(INJECTED)");
        if rest.starts_with("<... ") {
            if let Some(call) = unfinished.remove(thread) {
                calls[call].is_injected |= is_injected;
            }
            continue;
        }
        let Some((name, arguments)) = rest.split_once('(') else { continue };
        let count = counts.entry((thread, name)).or_insert(0);
        *count += 1;
        unfinished.insert(thread, calls.len());
        let path = path_in(arguments);
        calls.push(TracedCall { name: name.to_owned(), ordinal: *count, path, is_injected });
    }
    calls
}

/// The first file in the arguments of a call: `"/a/file"`, or the one behind a descriptor, `7</a/file>`.
fn path_in(arguments: &str) -> Option<PathBuf> {
    let arguments = match arguments.strip_prefix("AT_FDCWD<") {
        Some(rest) => rest.split_once('>')?.1,
        None => arguments,
    };
    let (start, end) = match (arguments.find("</"), arguments.find("\"/")) {
        (Some(descriptor), Some(quote)) if descriptor < quote => (descriptor, '>'),
        (_, Some(quote)) => (quote, '"'),
        (Some(descriptor), None) => (descriptor, '>'),
        (None, None) => return None,
    };
    Some(arguments[start + 1..].split(end).next()?.into())
}

/// The ordinals that calls of this name had whose file lies under `directory`, each once, in order.
pub fn ordinals_below(calls: &[TracedCall], name: &str, directory: &Path) -> Vec<u32> {
    let of_name = calls.iter().filter(|call| call.name == name && is_below(call, directory));
    let mut ordinals: Vec<_> = of_name.map(|call| call.ordinal).collect();
    ordinals.sort_unstable();
    ordinals.dedup();
    ordinals
}

pub fn is_below(call: &TracedCall, directory: &Path) -> bool {
    call.path.as_ref().is_some_and(|path| path.starts_with(directory))
}

/// At most `most` of `all`, evenly spread, the first and the last among them.
pub fn sampled<T: Copy>(all: &[T], most: usize) -> Vec<T> {
    if all.len() <= most {
        return all.to_vec();
    }
    (0..most).map(|n| all[n * (all.len() - 1) / (most - 1)]).collect()
}

/// Runs `work` on each of `items`, on as many threads as there are processors. Results come in the order of the items.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(usize, &T) -> R + Sync) -> Vec<R> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let results: Vec<_> = items.iter().map(|_| std::sync::Mutex::new(None)).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(item) = items.get(n) else { return };
                    *results[n].lock().unwrap() = Some(work(n, item));
                }
            });
        }
    });
    results.into_iter().map(|result| result.into_inner().unwrap().unwrap()).collect()
}

const INSIDE: &str = "TAILWATER_TEST_IN_MOUNT_NAMESPACE";

/// Runs the test of this name again in a mount namespace of its own, where it may mount what it likes: when the last
/// process in there ends, however it does, nothing of that is left.
///
/// True in the inner run, which is to do the work. False in the outer one, which is done then, or where there can be no
/// namespace, which is told.
pub fn is_in_mount_namespace(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let tried = Command::new("unshare").args(["-m", "--propagation", "private", "true"]).output();
    if let Some(why) = why_not(tried) {
        skipped(test, &format!("no mount namespace (it takes root): {why}"));
        return false;
    }
    let inner = Command::new("unshare")
        .args(["-m", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&inner.stdout), String::from_utf8_lossy(&inner.stderr));
    assert!(inner.status.success(), "in its mount namespace:\n{said}");
    assert!(said.contains("1 passed"), "no test {test} was run:\n{said}");
    // What it skipped or measured inside is told outside.
    std::io::stderr().write_all(&inner.stderr).unwrap();
    false
}

/// Why a program did not do what it was started for; `None` if it did.
pub fn why_not(tried: std::io::Result<Output>) -> Option<String> {
    match tried {
        Err(error) => Some(error.to_string()),
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim_end().to_owned()),
    }
}

/// Runs a tool that has to succeed.
#[track_caller]
pub fn tool(program: &str, arguments: &[&str]) {
    if let Some(why) = why_not(Command::new(program).args(arguments).output()) {
        panic!("{program} {arguments:?}: {why}");
    }
}

/// `command`, run by a shell that has said `limit` before, such as `ulimit -n 20`.
pub fn limited(limit: &str, command: &Command) -> Command {
    let mut shell = Command::new("bash");
    // A limit that cannot be set must not pass for one that was.
    shell.arg("-c").arg(format!("{limit} || exit 99; exec \"$@\"")).arg("bash");
    shell.arg(command.get_program()).args(command.get_args());
    shell.env_remove("TAILWATER_DATA").process_group(0);
    shell
}

/// Everything below a directory, as it looks: kind and permissions, inode, length, time of the last change, checksum.
pub fn look_of(directory: &Path) -> BTreeMap<PathBuf, (u32, u64, u64, i64, i64, u32)> {
    let mut all = BTreeMap::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(path) = todo.pop() {
        let is = std::fs::symlink_metadata(&path).unwrap();
        let mut checksum = 0;
        if is.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if is.is_file() {
            checksum = crc32fast::hash(&std::fs::read(&path).unwrap());
        }
        all.insert(path, (is.mode(), is.ino(), is.len(), is.mtime(), is.mtime_nsec(), checksum));
    }
    all
}

/// Copies a directory and what is in it.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
