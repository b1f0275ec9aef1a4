//! Which process this is, asked as often as something is written and mostly answered without a system call.
//!
//! The number is kept in a page of memory that the kernel hands to a forked child full of zeros, so that a child never reads
//! its parent's.

#![cfg_attr(
    target_os = "linux",
    expect(unsafe_code, reason = "memory of such a kind can be had in no other way")
)]

#[cfg(target_os = "linux")]
pub(crate) use kept::process_id;
#[cfg(not(target_os = "linux"))]
pub(crate) use std::process::id as process_id;

#[cfg(target_os = "linux")]
mod kept {
    use std::ptr::null_mut;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

    /// As much as the kernel gives at least.
    const PAGE_BYTES: usize = 4096;

    /// The number of this process in memory that a forked child finds zeroed. `None` if the kernel knows no such memory.
    static KEPT: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();

    /// The number of this process: [`std::process::id`], but that costs a system call.
    #[inline]
    pub(crate) fn process_id() -> u32 {
        match KEPT.get_or_init(wiped_on_fork) {
            Some(kept) => match kept.load(Ordering::Relaxed) {
                0 => {
                    let id = std::process::id();
                    kept.store(id, Ordering::Relaxed);
                    id
                }
                id => id,
            },
            None => std::process::id(),
        }
    }

    fn wiped_on_fork() -> Option<&'static AtomicU32> {
        let flags = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new map at an address that the kernel chooses touches no memory that anybody has.
        let page = unsafe { mmap_anonymous(null_mut(), PAGE_BYTES, flags, MapFlags::PRIVATE) }.ok()?;
        // SAFETY: the page was just made and nobody refers to it; the advice changes what a child finds in it, nothing here.
        unsafe { madvise(page, PAGE_BYTES, Advice::LinuxWipeOnFork) }.ok()?;
        // SAFETY: the page is aligned, zeroed, readable and writable, and never unmapped, and nobody else has its address.
        Some(unsafe { AtomicU32::from_ptr(page.cast()) })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn it_is_the_number_that_the_standard_library_says() {
            assert_eq!(process_id(), std::process::id());
            assert_eq!(process_id(), std::process::id());
        }
    }
}
