//! SQLite by `rusqlite`: a table used as a queue, in WAL mode.

use std::sync::Mutex;

use rusqlite::{Connection, OptionalExtension, params};

use crate::contest::Result;
use crate::peer::{Peer, PeerKind, Workload, locked};

pub(super) const KIND: PeerKind = PeerKind {
    name: "SQLite",
    appended: "in the page cache (`synchronous=NORMAL` in WAL mode)",
    synced: "`synchronous=FULL`: `fsync` of the WAL",
    checked: "checksums in the WAL only; none in the table",
    workloads: &[
        Workload::Buffered,
        Workload::Written,
        Workload::Durable,
        Workload::Scan,
        Workload::Read,
        Workload::Reopen,
    ],
    syncs: true,
    open: |directory, _| {
        let path = directory.join("sqlite");
        let lazy = Connection::open(&path)?;
        lazy.pragma_update(None, "journal_mode", "WAL")?;
        lazy.pragma_update(None, "synchronous", "NORMAL")?;
        lazy.execute("CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, value BLOB NOT NULL)", [])?;
        let durable = Connection::open(&path)?;
        durable.pragma_update(None, "synchronous", "FULL")?;
        Ok(Box::new(Store { lazy: Mutex::new(lazy), durable: Mutex::new(durable) }))
    },
};

const INSERT: &str = "INSERT INTO records (value) VALUES (?1)";

struct Store {
    lazy: Mutex<Connection>,
    durable: Mutex<Connection>,
}

impl Peer for Store {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        locked(&mut self.lazy).prepare_cached(INSERT)?.execute(params![value])?;
        Ok(())
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()> {
        let transaction = locked(&mut self.lazy).transaction()?;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            for value in values {
                insert.execute(params![value])?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn append_durable(&self, value: &[u8]) -> Result<()> {
        let connection = self.durable.lock().map_err(|_| "a thread panicked")?;
        connection.prepare_cached(INSERT)?.execute(params![value])?;
        Ok(())
    }

    fn scan(&mut self) -> Result<u64> {
        let mut select = locked(&mut self.lazy).prepare_cached("SELECT value FROM records ORDER BY id")?;
        let mut rows = select.query([])?;
        let mut size_bytes = 0;
        while let Some(row) = rows.next()? {
            size_bytes += row.get_ref(0)?.as_blob()?.len() as u64;
        }
        Ok(size_bytes)
    }

    fn read(&mut self, index: u64) -> Result<usize> {
        let mut select = locked(&mut self.lazy).prepare_cached("SELECT value FROM records WHERE id = ?1")?;
        let id = i64::try_from(index)? + 1;
        let found = select.query_row([id], |row| Ok(row.get_ref(0)?.as_blob()?.len())).optional()?;
        found.map_or_else(|| super::missing(index), Ok)
    }
}
