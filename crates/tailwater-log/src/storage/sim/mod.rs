//! A simulated disk that can lose power: for Tailwater's own tests, and for those of programs that use it.
//!
//! Everything is in memory. Live state (what reads show) and durable state (what survives) are kept apart: each change
//! is an [`Effect`] that is pending until a sync of its file or directory makes it durable. [`SimDisk::crash`] builds the
//! disk as a power cut would leave it, with any subset of what was pending; [`SimDisk::kill`] ends the process only.
//!
//! The fault model is the one in `docs/durability.md`, section 2: sectors of 512 bytes are written whole or not at all,
//! in any order; names and lengths too; after a failed sync the sectors that it was to write do not become durable
//! before a restart, whatever later syncs say, and names only if they are changed anew.
//!
//! # Examples
//!
//! ```
//! use tailwater_log::FilePosition;
//! use tailwater_log::storage::{OpenMode, SimDisk, Storage, StorageFile};
//!
//! let disk = SimDisk::new(1);
//! let file = disk.open_file("/log".as_ref(), OpenMode::CreateNew)?;
//! file.write_all_at(b"kept", FilePosition::ZERO)?;
//! file.sync_data()?;
//! disk.sync_directory("/".as_ref())?;
//! file.write_all_at(b"lost", FilePosition::ZERO)?;
//!
//! let restarted = disk.crash(|_, _| false);
//! assert_eq!(restarted.read_file("/log".as_ref()).as_deref(), Some(&b"kept"[..]));
//! # Ok::<(), tailwater_log::Error>(())
//! ```

mod content;
mod disk;
mod state;
#[cfg(test)]
mod tests;

pub use disk::SimDisk;
pub use state::{Effect, Fault, FaultAction, FaultTarget};
