//! What children were acknowledged, kept outside of them.

use std::collections::BTreeMap;
use std::fmt;

use tailwater_benches::contest::Result;

/// What a child has to find, and what was done so far.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Of each partition: where acknowledged records end.
    pub(crate) ends: BTreeMap<u32, u64>,
    /// Of each group and partition: the highest position whose commit was acknowledged.
    pub(crate) positions: BTreeMap<(String, u32), u64>,
    /// Of each key: how often it was set.
    pub(crate) states: BTreeMap<u64, u64>,
    published: u64,
    read: u64,
    events: BTreeMap<String, u64>,
}

impl Journal {
    /// Notes a line that a child wrote: a word, and what belongs to it.
    pub(crate) fn note(&mut self, line: &str) -> Result<()> {
        let words: Vec<_> = line.split_whitespace().collect();
        let bad = || format!("a child wrote {line:?}");
        let number =
            |at: usize| -> Result<u64> { Ok(words.get(at).ok_or_else(bad)?.parse().map_err(|_| bad())?) };
        match words.first().copied() {
            Some("end") => {
                let end = self.ends.entry(u32::try_from(number(1)?)?).or_default();
                self.published += number(2)?.saturating_sub(*end);
                *end = number(2)?.max(*end);
            }
            Some("position") => {
                let place = (words.get(1).ok_or_else(bad)?.to_string(), u32::try_from(number(2)?)?);
                let position = self.positions.entry(place).or_default();
                self.read += number(3)?.saturating_sub(*position);
                *position = number(3)?.max(*position);
            }
            Some("state") => {
                let count = self.states.entry(number(1)?).or_default();
                *count = number(2)?.max(*count);
            }
            Some("did") => {
                *self.events.entry(words[1..words.len() - 1].join(" ")).or_default() +=
                    number(words.len() - 1)?
            }
            _ => return Err(bad().into()),
        }
        Ok(())
    }

    /// What a child is to find, a line for each.
    pub(crate) fn lines(&self) -> String {
        let mut lines = String::new();
        self.ends.iter().for_each(|(partition, end)| lines.push_str(&format!("end {partition} {end}\n")));
        self.positions.iter().for_each(|((group, partition), at)| {
            lines.push_str(&format!("position {group} {partition} {at}\n"))
        });
        self.states.iter().for_each(|(key, count)| lines.push_str(&format!("state {key} {count}\n")));
        lines
    }

    /// Whether there was anything to lose.
    pub(crate) fn check_progress(&self) -> Result<()> {
        if self.published < 1_000 || self.read < 1_000 || self.states.is_empty() {
            return Err("too little was done for this to tell anything".into());
        }
        Ok(())
    }
}

impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "acknowledged and found: {} records, {} positions, {} keys",
            self.published,
            self.positions.len(),
            self.states.len()
        )?;
        writeln!(f, "read and committed: {} records", self.read)?;
        self.events.iter().try_for_each(|(what, count)| writeln!(f, "{what}: {count}"))
    }
}
