//! A bound on what an input may make the code under test allocate.

use std::sync::{Mutex, PoisonError};

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Most bytes that may be allocated at once while an input runs, beyond its own size.
const MAX_BYTES: usize = 64 << 20;

/// Runs the body of a fuzz target on an input, and fails if that took more memory than any input may.
///
/// One input at a time: the allocations of all threads count.
pub(crate) fn run_bounded(data: &[u8], run: fn(&[u8])) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    run(data);
    let taken = ALLOCATOR.peak_usage().saturating_sub(before);
    let allowed = MAX_BYTES + data.len();
    assert!(taken <= allowed, "{taken} bytes were allocated at once, of an input of {} bytes", data.len());
}
