//! A producer that is given lines in waves, each after the one before was acknowledged, and what must be left of them.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::Data;

/// How many lines are sent together.
pub const WAVE: usize = 6;

/// Nothing here takes that long: whoever has said nothing for this time hangs.
const HANG: Duration = Duration::from_secs(60);

/// Lines that can be told from each other.
pub fn lines(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{name} {n} {}", "w".repeat(n * 37 % 150))).collect()
}

/// How a producer ended.
#[derive(Debug)]
pub struct Produced {
    /// How many lines it was given.
    pub sent: usize,
    /// The offset of each line that was acknowledged, from the first on.
    pub offsets: Vec<u64>,
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stderr: String,
}

impl Data {
    /// The command, to be started by the standard library.
    pub fn plain_command(&self, arguments: &[&str]) -> Command {
        plain_command(&self.path(), arguments)
    }
}

pub fn plain_command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tailwater"));
    command.env_remove("TAILWATER_DATA").arg("--data").arg(directory).args(arguments);
    command
}

/// Starts `command`, which is a `produce --acks`, and gives it `lines` in waves until all are acknowledged or it ends.
pub fn produce_in_waves(mut command: Command, lines: &[String]) -> Produced {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let stdout = child.stdout.take().unwrap();
    let (told, heard) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        // The last one may be cut.
        while stdout.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
            let (_, offset) = line.trim_end().split_once('\t').unwrap();
            told.send(offset.parse::<u64>().unwrap()).unwrap();
            line.clear();
        }
    });
    let warning = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    let mut sent = 0;
    let mut offsets = Vec::new();
    'waves: for wave in lines.chunks(WAVE) {
        let text: String = wave.iter().map(|line| format!("{line}\n")).collect();
        // Some of it may be read before the pipe breaks.
        sent += wave.len();
        if input.write_all(text.as_bytes()).is_err() {
            break;
        }
        while offsets.len() < sent {
            match heard.recv_timeout(HANG) {
                Ok(offset) => offsets.push(offset),
                Err(mpsc::RecvTimeoutError::Disconnected) => break 'waves,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let _ = child.kill();
                    panic!("it hangs: {command:?}");
                }
            }
        }
    }
    drop(input);
    let status = child.wait().unwrap();
    reading.join().unwrap();
    offsets.extend(heard.iter());
    let stderr = warning.join().unwrap();
    Produced { sent, offsets, code: status.code(), signal: status.signal(), stderr }
}

/// What a directory holds, by all that the command can say about it.
///
/// `verify` has found no damage and nothing was changed by it; the records are those of `before`, and then, in order, a
/// beginning of the lines that were sent, with all of them that were acknowledged. Returns how many there are.
///
/// # Errors
///
/// What is not so.
pub fn check_kept(
    data: &Data,
    before: &[String],
    lines: &[String],
    produced: &Produced,
) -> Result<usize, String> {
    let closed = Produced {
        sent: before.len(),
        offsets: (0..before.len() as u64).collect(),
        code: Some(0),
        signal: None,
        stderr: String::new(),
    };
    check_kept_of(data, 0, &[(before, &closed), (lines, produced)])
}

/// As [`check_kept`], for a topic whose first `removed` records were deleted and whose others come of several producers,
/// one after the other: of each there is a beginning of what it sent, with all that was acknowledged to it.
///
/// How long such a beginning is may change once: what was written without a sync is kept by the next process that opens
/// the directory for writing, and not shown to one that finds no room for that and only reads.
///
/// # Errors
///
/// What is not so.
pub fn check_kept_of(data: &Data, removed: usize, runs: &[(&[String], &Produced)]) -> Result<usize, String> {
    let verified = data.run(&["verify"]);
    if verified.code != 0 {
        return Err(format!("verify: {verified:?}"));
    }
    let consumed = data.run(&["consume", "orders"]);
    if consumed.code != 0 {
        return Err(format!("consume: {consumed:?}"));
    }
    let mut left: Vec<_> = runs[0].0.iter().take(removed).map(String::as_str).collect();
    left.extend(consumed.stdout.lines());
    let mut first = 0;
    for (lines, produced) in runs {
        let (acknowledged, sent) = (produced.offsets.len(), produced.sent);
        let kept =
            left[first..].iter().zip(*lines).take(sent).take_while(|(is, should)| is == should).count();
        if kept < acknowledged {
            let is = left.get(first + kept);
            return Err(format!("offset {} is {is:?}, not {:?}, acknowledged", first + kept, lines[kept]));
        }
        if produced.offsets.iter().zip(first as u64..).any(|(offset, expected)| *offset != expected) {
            return Err(format!("acknowledged out of order: {:?}", produced.offsets));
        }
        first += kept;
    }
    match left.get(first) {
        Some(more) => Err(format!("offset {first} is {more:?}, which is not what was sent next")),
        None => Ok(first),
    }
}

/// Whether one more record can be appended where the others end.
///
/// # Errors
///
/// What happened instead.
pub fn check_goes_on(data: &Data, next: usize) -> Result<(), String> {
    let more = data.run_with(&["produce", "orders", "--acks"], b"one more\n");
    if more.code != 0 || more.stdout != format!("0\t{next}\n") {
        return Err(format!("one more at {next}: {more:?}"));
    }
    let verified = data.run(&["verify"]);
    if verified.code != 0 {
        return Err(format!("verify after one more: {verified:?}"));
    }
    Ok(())
}

/// A directory in `parent` with an empty topic of small segments.
pub fn empty_template(parent: &Path) -> PathBuf {
    let directory = parent.join("template");
    let create = ["topic", "create", "orders", "--set", "segment_bytes=4096"];
    assert!(plain_command(&directory, &create).status().unwrap().success());
    directory
}

/// Appends lines and closes in order.
pub fn fill(directory: &Path, lines: &[String]) {
    let produced = produce_in_waves(plain_command(directory, &["produce", "orders", "--acks"]), lines);
    assert_eq!((produced.offsets.len(), produced.code), (lines.len(), Some(0)), "{produced:?}");
}

/// Appends lines, is killed when all are acknowledged, and leaves bytes of an unfinished append behind them.
pub fn fill_and_die(directory: &Path, lines: &[String]) {
    let mut command = plain_command(directory, &["produce", "orders", "--acks"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    lines.iter().for_each(|line| writeln!(input, "{line}").unwrap());
    let acknowledged = BufReader::new(child.stdout.take().unwrap()).lines().take(lines.len()).count();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(acknowledged, lines.len());

    let files = std::fs::read_dir(directory.join("orders-0")).unwrap().map(|entry| entry.unwrap().path());
    let last = files.filter(|path| path.extension().is_some_and(|is| is == "log")).max().unwrap();
    let mut bytes = std::fs::read(&last).unwrap();
    let data_end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes.resize(bytes.len().max(data_end + 400), 0);
    bytes[data_end + 200..data_end + 300].fill(b'!');
    std::fs::write(last, bytes).unwrap();
}
