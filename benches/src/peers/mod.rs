//! Published crates that a user might pick instead. Built with the feature `peers`.
//!
//! Each is used as its documentation shows, with space for the whole run where it can be asked for, so that no run measures
//! a crate's compaction or checkpoint by accident. What each guarantees is said beside its figures, and [`trace`] shows
//! what it asked of the operating system.

#[cfg(feature = "peers")]
mod commitlog;
#[cfg(feature = "peers")]
mod fjall;
#[cfg(feature = "peers")]
mod okaywal;
#[cfg(feature = "peers")]
mod raft_engine;
#[cfg(feature = "peers")]
mod redb;
#[cfg(feature = "peers")]
mod seglog;
#[cfg(feature = "peers")]
mod sqlite;
pub mod trace;
#[cfg(feature = "peers")]
mod yaque;

use crate::peer::PeerKind;

/// All that are built in: none without the feature `peers`.
#[must_use]
pub fn all() -> Vec<PeerKind> {
    #[cfg(feature = "peers")]
    return vec![
        commitlog::KIND,
        raft_engine::KIND,
        okaywal::KIND,
        fjall::KIND,
        redb::KIND,
        sqlite::KIND,
        seglog::KIND,
        yaque::KIND,
    ];
    #[cfg(not(feature = "peers"))]
    vec![]
}

/// The error of a read that found nothing.
#[cfg(feature = "peers")]
fn missing(index: u64) -> crate::contest::Result<usize> {
    Err(format!("there is no record {index}").into())
}

#[cfg(all(test, feature = "peers"))]
mod tests {
    use crate::peer::Workload;

    #[test]
    fn every_crate_reads_back_what_it_was_given() {
        for kind in super::all() {
            let directory = tempfile::tempdir().unwrap();
            let mut peer = (kind.open)(directory.path(), 64 << 20).unwrap();
            peer.fill(&[7; 1024], 1_000).unwrap();
            peer.append(&[7; 1024]).unwrap();
            peer.write().unwrap();
            if kind.workloads.contains(&Workload::Durable) {
                peer.append_durable(&[7; 1024]).unwrap();
            }
            if kind.workloads.contains(&Workload::Read) {
                assert_eq!(peer.read(999).unwrap(), 1024, "{}", kind.name);
            }
            if kind.workloads.contains(&Workload::Scan) {
                let expected = if kind.workloads.contains(&Workload::Durable) { 1_002 } else { 1_001 };
                assert_eq!(peer.scan().unwrap(), expected * 1024, "{}", kind.name);
            }
            drop(peer);
            if kind.workloads.contains(&Workload::Reopen) {
                let mut peer = (kind.open)(directory.path(), 64 << 20).unwrap();
                assert_eq!(peer.read(1_000).unwrap(), 1024, "{}", kind.name);
            }
        }
    }
}
