//! SIGINT, SIGTERM, and a standard output that nobody reads: what a command still does when it is told to end.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use tailwater::{Broker, Interrupter};

use crate::exit::{Failure, Result};

/// What a shell reports for a process that SIGINT ended.
const INTERRUPTED: i32 = 128 + SIGINT;

/// How long a directory that is still filled is tried to be removed.
const REMOVED_WITHIN: Duration = Duration::from_secs(5);

/// Has a signal end the waiting of a consumer; a second one ends the process, for when nobody takes what is printed.
pub(crate) fn interrupt(interrupter: Interrupter) -> Result<()> {
    let mut is_second = false;
    at_each(move |_| {
        if std::mem::replace(&mut is_second, true) {
            std::process::exit(INTERRUPTED);
        }
        interrupter.interrupt();
    })
}

/// Has the closing of standard output end the waiting of a consumer: `| head -1` has enough, whether more comes or not.
pub(crate) fn interrupt_when_unread(interrupter: Interrupter) -> Result<()> {
    let watch = move || {
        let stdout = io::stdout();
        // Asks for nothing: errors, such as that of a pipe whose reader is gone, are told all the same.
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        while let Err(Errno::INTR) = poll(&mut watched, None) {}
        if watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
            interrupter.interrupt();
        }
    };
    let cannot = |error: io::Error| Failure::failed(format!("cannot watch standard output: {error}"));
    thread::Builder::new().name("tailwater-stdout".to_owned()).spawn(watch).map_err(cannot)?;
    Ok(())
}

/// Has a signal close the broker, so that there is nothing to recover, and then end the process as it would have.
pub(crate) fn close_and_end(broker: Broker) -> Result<Ending> {
    let ending = Ending::default();
    let begun = Arc::clone(&ending.has_begun);
    at_each(move |signal| {
        begun.store(true, Ordering::SeqCst);
        // What cannot be closed is recovered by whoever comes next.
        let _ = broker.close();
        let _ = emulate_default_handler(signal);
        std::process::exit(128 + signal);
    })?;
    Ok(ending)
}

/// Has a signal remove a directory with all that is in it, also while it is filled, and then end the process as it would have.
pub(crate) fn remove_and_end(directory: PathBuf) -> Result<Ending> {
    let ending = Ending::default();
    let begun = Arc::clone(&ending.has_begun);
    at_each(move |signal| {
        begun.store(true, Ordering::SeqCst);
        let give_up = Instant::now() + REMOVED_WITHIN;
        // Files that are made meanwhile keep it from being removed; once it is gone none can be made.
        while fs::remove_dir_all(&directory).is_err() && directory.exists() && Instant::now() < give_up {
            thread::sleep(Duration::from_millis(1));
        }
        let _ = emulate_default_handler(signal);
        std::process::exit(128 + signal);
    })?;
    Ok(ending)
}

/// Whether a signal is about to end the process.
#[derive(Default)]
pub(crate) struct Ending {
    has_begun: Arc<AtomicBool>,
}

impl Ending {
    /// Leaves the end to the signal, if one came: what failed since then failed because of what it does.
    pub(crate) fn give_way(&self) {
        while self.has_begun.load(Ordering::SeqCst) {
            thread::park();
        }
    }
}

fn at_each(mut act: impl FnMut(i32) + Send + 'static) -> Result<()> {
    let cannot = |error: io::Error| Failure::failed(format!("cannot watch for signals: {error}"));
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(cannot)?;
    let watch = move || signals.forever().for_each(&mut act);
    thread::Builder::new().name("tailwater-signals".to_owned()).spawn(watch).map_err(cannot)?;
    Ok(())
}
