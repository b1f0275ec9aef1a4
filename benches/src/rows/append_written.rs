//! How fast are appends, one at a time, that are in the page cache when they return?

use tailwater_log::Durability;

use super::value;
use crate::baseline::HEADER_BYTES;
use crate::baseline::single_writes::SingleWrites;
use crate::contest::{Bound, Contestant, Metric, Result, Role, Row, Scale, Target};
use crate::measure::{LONGEST_PEER_ROUND, rate, rate_within};
use crate::peer::{self, Workload};
use crate::subject;

const SIZE_BYTES: usize = 100;

/// 100-byte records.
pub(super) const ROW: Row = Row {
    name: "append-written-100b",
    title: "append one at a time, `written`, 100 B",
    metrics: &[Metric::rate("records/s")],
    targets: &[Target { metric: 0, bound: Bound::OfBare(0.95) }],
    prepare: contestants,
};

fn contestants(scale: &Scale) -> Result<Vec<Contestant>> {
    let count = scale.count(1_000_000);
    let value = value(SIZE_BYTES);
    let reserved_bytes = count * (SIZE_BYTES + HEADER_BYTES) as u64;
    let (bare_scale, bare_value) = (scale.clone(), value.clone());
    let bare = move || {
        let directory = bare_scale.directory()?;
        let mut file = SingleWrites::create(&directory.path().join("bare"), reserved_bytes)?;
        Ok(vec![rate(count, || file.append(&bare_value))?])
    };
    let (log_scale, log_value) = (scale.clone(), value.clone());
    let tailwater = move || {
        let directory = log_scale.directory()?;
        let log = subject::create(directory.path(), Durability::Written)?;
        Ok(vec![rate(count, || subject::append(&log, &log_value))?])
    };
    let mut contestants = vec![
        Contestant::new("bare", Role::Bare, "one `pwrite` each into reserved space", bare),
        Contestant::new("tailwater", Role::Tailwater, "`written`: in the page cache; checksummed", tailwater),
    ];
    contestants.extend(peer::contestants(scale, Workload::Written, |kind| {
        let (scale, value) = (scale.clone(), value.clone());
        Ok(move || {
            let directory = scale.directory()?;
            let mut peer = (kind.open)(directory.path(), 2 * reserved_bytes)?;
            Ok(vec![rate_within(LONGEST_PEER_ROUND, count, || {
                peer.append(&value).and_then(|()| peer.write())
            })?])
        })
    })?);
    Ok(contestants)
}
