//! Published crates that a user might pick instead. Built with the feature `peers`.

use crate::peer::PeerKind;

/// All that are built in: none without the feature `peers`.
#[must_use]
pub fn all() -> Vec<PeerKind> {
    vec![]
}
