//! The epochs of a group and its members, as KIP-848 has them.

use std::fmt;

macro_rules! epoch {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
        pub struct $name(u64);

        impl $name {
            /// The epoch of this number.
            #[must_use]
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The number itself.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

epoch! {
    /// Rises with every change of who is a member, who subscribes to what, and how many partitions there are.
    GroupEpoch
}
epoch! {
    /// The group epoch that the target assignment was computed for.
    AssignmentEpoch
}
epoch! {
    /// The assignment epoch that a member has reconciled to: it has taken note of that assignment, and holds nothing that
    /// it is to give up by it. 0 until its first poll.
    MemberEpoch
}
