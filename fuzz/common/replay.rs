//! Runs the committed inputs of a fuzz target as an ordinary test.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::memory::run_bounded;

/// How long an input may take. The slowest of them take some hundredths of a second.
const MAX_TIME: Duration = Duration::from_secs(120);

/// Runs every file of `fuzz/corpus/<target>/` through the target's body.
///
/// # Panics
///
/// If there is no input, or if some fail; the message names them, and what each printed stands before it.
pub(crate) fn replay(target: &str, run: fn(&[u8])) {
    let start = Instant::now();
    let inputs = inputs(target);
    assert!(!inputs.is_empty(), "there is no input in fuzz/corpus/{target}");
    let failed: Vec<_> = inputs.iter().filter_map(|path| run_file(path, run).err()).collect();
    println!("{target}: {} inputs ran in {} ms", inputs.len(), start.elapsed().as_millis());
    assert!(failed.is_empty(), "{} of {} inputs fail:\n{}", failed.len(), inputs.len(), failed.join("\n"));
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("cannot list {}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("the corpus can be listed").path()).collect();
    paths.sort();
    paths
}

/// Runs one input, in a thread of its own: so that one that panics or hangs can be named.
fn run_file(path: &Path, run: fn(&[u8])) -> Result<(), String> {
    let name = path.display();
    let data = std::fs::read(path).map_err(|error| format!("{name} cannot be read: {error}"))?;
    let (done, is_done) = mpsc::channel();
    let thread = thread::spawn(move || {
        run_bounded(&data, run);
        // Nobody listens any more only after the time limit.
        let _ = done.send(());
    });
    match is_done.recv_timeout(MAX_TIME) {
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("{name} runs for more than {MAX_TIME:?}")),
        _ => thread.join().map_err(|_| format!("{name} panics")),
    }
}
