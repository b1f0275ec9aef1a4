//! The application: accounts in a database of its own, to which each record is booked once.
//!
//! - What a record does and the cursor behind it are stored in one transaction.
//! - The cursor is replaced only if it is still the one that this instance stored or read: of two that are at the same
//!   place, one changes it and the other nothing.
//! - Records that lie in front of that cursor are refused as well: they were polled before it was read.
//! - An instance that was refused, or that had an error, reads the cursors anew before it goes on: what it polls next lies
//!   behind records that have had no effect.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tailwater::{Cursor, PartitionId, Record, Records, TopicId};

/// How SQLite makes a transaction atomic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Journal {
    /// What is overwritten is kept in a file beside the database, until the transaction is done. SQLite's default.
    Rollback,
    /// What is new is written to a log, in front of the database.
    Wal,
}

/// What a program can do wrong. The tests have to notice each of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mistake {
    /// The cursor has a transaction of its own, behind that of the effects.
    CursorLater,
    /// The cursor has a transaction of its own, in front of that of the effects.
    CursorEarlier,
    /// It goes on where the group has committed, whatever the database says.
    CommittedOffset,
    /// It stores its cursor whatever is stored there.
    NoCompare,
}

impl Mistake {
    pub(crate) const ALL: [Self; 4] =
        [Self::CursorLater, Self::CursorEarlier, Self::CommittedOffset, Self::NoCompare];
}

/// What became of records that were to be applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// All of them have had their effects.
    Applied,
    /// Another instance has been here since: nothing was changed.
    Overtaken,
}

type Place = (TopicId, PartitionId);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, cents INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS cursors (
        topic_id TEXT, partition INTEGER, cursor TEXT NOT NULL, PRIMARY KEY (topic_id, partition));
    -- For the tests: how often each record has had its effect.
    CREATE TABLE IF NOT EXISTS applied (record TEXT PRIMARY KEY, count INTEGER NOT NULL);
";

/// An instance of the application.
pub(crate) struct Bank {
    database: Connection,
    /// What is stored, as far as this instance knows.
    cursors: BTreeMap<Place, Cursor>,
    mistake: Option<Mistake>,
}

impl Bank {
    pub(crate) fn open(path: &Path, journal: Journal, mistake: Option<Mistake>) -> rusqlite::Result<Self> {
        let database = Connection::open(path)?;
        let mode = match journal {
            Journal::Rollback => "DELETE",
            Journal::Wal => "WAL",
        };
        database.pragma_update_and_check(None, "journal_mode", mode, |row| {
            let found: String = row.get(0)?;
            assert!(found.eq_ignore_ascii_case(mode), "the journal is in mode {found}");
            Ok(())
        })?;
        database.pragma_update(None, "synchronous", "FULL")?;
        database.execute_batch(SCHEMA)?;
        Ok(Self { database, cursors: BTreeMap::new(), mistake })
    }

    /// The cursor behind what has had its effect in a partition, which the instance goes on from. If the partition is new,
    /// that is `position`, and it is stored.
    pub(crate) fn resume(&mut self, position: Cursor) -> rusqlite::Result<Cursor> {
        let transaction = self.database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let stored = stored(&transaction, position)?;
        transaction.commit()?;
        self.cursors.insert((stored.topic_id, stored.partition), stored);
        Ok(if self.mistake == Some(Mistake::CommittedOffset) { position } else { stored })
    }

    /// Books these records, all or none. After anything but success the instance knows no cursors, and is refused until it
    /// has [resumed](Self::resume): what it polls next need not be what comes next.
    pub(crate) fn apply(&mut self, records: &Records) -> rusqlite::Result<Outcome> {
        let before = std::mem::take(&mut self.cursors);
        let mut after = before.clone();
        for record in records.iter() {
            let (at, next) = (record.cursor(), record.next_cursor());
            let place = (at.topic_id, at.partition);
            if before.get(&place).is_none_or(|before| at.offset < before.offset) {
                return Ok(Outcome::Overtaken);
            }
            after.insert(place, next);
        }
        let compares = !matches!(self.mistake, Some(Mistake::NoCompare | Mistake::CommittedOffset));
        let advance = |transaction: &Transaction<'_>| advance(transaction, &before, &after, compares);
        let book = |transaction: &Transaction<'_>| book(transaction, records);
        let outcome = match self.mistake {
            None | Some(Mistake::NoCompare | Mistake::CommittedOffset) => {
                self.in_transaction(|transaction| match advance(transaction)? {
                    Outcome::Applied => book(transaction),
                    Outcome::Overtaken => Ok(Outcome::Overtaken),
                })?
            }
            Some(Mistake::CursorEarlier) => match self.in_transaction(advance)? {
                Outcome::Applied => self.in_transaction(book)?,
                Outcome::Overtaken => Outcome::Overtaken,
            },
            Some(Mistake::CursorLater) => {
                self.in_transaction(book)?;
                self.in_transaction(advance)?
            }
        };
        if outcome == Outcome::Applied {
            self.cursors = after;
        }
        Ok(outcome)
    }

    /// Runs a transaction, and commits it if it comes to [`Outcome::Applied`].
    fn in_transaction(
        &mut self,
        act: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Outcome>,
    ) -> rusqlite::Result<Outcome> {
        let transaction = self.database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let outcome = act(&transaction)?;
        if outcome == Outcome::Applied {
            transaction.commit()?;
        }
        // Else it is rolled back where it is dropped.
        Ok(outcome)
    }

    /// Everything in the database, as text.
    pub(crate) fn dump(&self) -> rusqlite::Result<String> {
        let mut dump = String::new();
        for table in ["accounts", "cursors", "applied"] {
            let mut statement = self.database.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2"))?;
            let columns = statement.column_count();
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let values = (0..columns).map(|column| row.get(column)).collect::<Result<Vec<_>, _>>()?;
                let values: Vec<rusqlite::types::Value> = values;
                dump += &format!("{table} {values:?}\n");
            }
        }
        Ok(dump)
    }

    /// How often each record has had its effect, by its cursor.
    pub(crate) fn applied(&self) -> rusqlite::Result<BTreeMap<String, i64>> {
        self.pairs("SELECT record, count FROM applied")
    }

    pub(crate) fn accounts(&self) -> rusqlite::Result<BTreeMap<String, i64>> {
        self.pairs("SELECT name, cents FROM accounts")
    }

    fn pairs(&self, query: &str) -> rusqlite::Result<BTreeMap<String, i64>> {
        let mut statement = self.database.prepare(query)?;
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }

    /// The stored cursors.
    pub(crate) fn stored_cursors(&self) -> rusqlite::Result<Vec<Cursor>> {
        let mut statement = self.database.prepare("SELECT cursor FROM cursors ORDER BY partition")?;
        statement.query_map([], |row| Ok(parse(&row.get::<_, String>(0)?)))?.collect()
    }
}

/// Replaces the cursors that have moved; if it `compares`, each only where it is still the one before.
fn advance(
    transaction: &Transaction<'_>,
    before: &BTreeMap<Place, Cursor>,
    after: &BTreeMap<Place, Cursor>,
    compares: bool,
) -> rusqlite::Result<Outcome> {
    for (place, after) in after {
        let before = before[place];
        if before == *after {
            continue;
        }
        let (topic_id, partition) = (place.0.to_string(), place.1.get());
        let moved = transaction.execute(
            "UPDATE cursors SET cursor = ?3
             WHERE topic_id = ?1 AND partition = ?2 AND (cursor = ?4 OR NOT ?5)",
            params![topic_id, partition, after.to_string(), before.to_string(), compares],
        )?;
        if moved == 0 {
            return Ok(Outcome::Overtaken);
        }
    }
    Ok(Outcome::Applied)
}

/// The cursor that is stored for a partition; `position` if there is none, which then is.
fn stored(transaction: &Transaction<'_>, position: Cursor) -> rusqlite::Result<Cursor> {
    let (topic_id, partition) = (position.topic_id.to_string(), position.partition.get());
    transaction.execute(
        "INSERT INTO cursors VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        params![topic_id, partition, position.to_string()],
    )?;
    transaction.query_row(
        "SELECT cursor FROM cursors WHERE topic_id = ?1 AND partition = ?2",
        params![topic_id, partition],
        |row| Ok(parse(&row.get::<_, String>(0)?)),
    )
}

fn parse(cursor: &str) -> Cursor {
    cursor.parse().expect("what is stored was written by `Display`")
}

/// The effects: account and counter.
fn book(transaction: &Transaction<'_>, records: &Records) -> rusqlite::Result<Outcome> {
    for record in records.iter() {
        let (account, cents) = booking(&record);
        transaction.execute(
            "INSERT INTO accounts VALUES (?1, ?2) ON CONFLICT DO UPDATE SET cents = cents + ?2",
            params![account, cents],
        )?;
        transaction.execute(
            "INSERT INTO applied VALUES (?1, 1) ON CONFLICT DO UPDATE SET count = count + 1",
            params![record.cursor().to_string()],
        )?;
    }
    Ok(Outcome::Applied)
}

/// What a record says: its key is the account, its value an amount.
pub(crate) fn booking(record: &Record<'_>) -> (String, i64) {
    let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or_default().to_vec());
    let account = text(record.key()).expect("an account's name is text");
    let cents = text(record.value()).expect("an amount is text").parse().expect("an amount is a number");
    (account, cents)
}
