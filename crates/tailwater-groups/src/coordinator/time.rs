//! The time that deadlines are counted in.

use std::fmt;

/// A moment of a clock that never jumps and never goes back: milliseconds since some moment of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct MonotonicMs(u64);

impl MonotonicMs {
    /// The first moment there is.
    pub const ZERO: Self = Self(0);

    /// The moment `ms` milliseconds after [`ZERO`](Self::ZERO).
    #[must_use]
    pub const fn new(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since [`ZERO`](Self::ZERO).
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The moment `ms` milliseconds later, or the last there is.
    #[must_use]
    pub const fn saturating_add_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment; 0 if `earlier` is later.
    #[must_use]
    pub const fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for MonotonicMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}
