//! A row of the comparison: who takes part, in rounds that are interleaved, and what is to be reached.
//!
//! Every contestant runs once in each round, in the same order (A B A B ...), so that a machine that grows slower does so
//! for all of them. A ratio is the median of the ratios of the rounds, each of figures taken within seconds of another.

use std::path::PathBuf;

use tempfile::TempDir;

/// The result of a benchmark: whatever goes wrong ends the run.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How much is done, and where.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Whether everything is done once and small, to see that it works.
    pub is_quick: bool,
    /// Where the files that are measured are made.
    pub work: PathBuf,
    /// Sizes, in bytes, of the logs that are opened.
    pub open_bytes: Vec<u64>,
    /// Names of the published crates that take part. Empty without the feature `peers`.
    pub peers: Vec<String>,
}

impl Scale {
    /// `full`, or a small part of it if this is a quick run.
    #[must_use]
    pub fn count(&self, full: u64) -> u64 {
        if self.is_quick { (full / 2_000).max(64) } else { full }
    }

    /// A new directory on the disk that is measured, removed when dropped. Dirty pages of files in it go with it: what one
    /// contestant wrote is not written back while the next one is measured.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn directory(&self) -> std::io::Result<TempDir> {
        tempfile::Builder::new().prefix("bench-").tempdir_in(&self.work)
    }
}

/// Which of two figures is the better one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Better {
    /// The higher one: a rate.
    Higher,
    /// The lower one: a time.
    Lower,
}

/// What a round measures.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, such as `p50`.
    pub name: &'static str,
    /// Its unit, such as `us`.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
}

impl Metric {
    /// A rate in `unit`.
    #[must_use]
    pub const fn rate(unit: &'static str) -> Self {
        Self { name: "rate", unit, better: Better::Higher }
    }

    /// A time in `unit`.
    #[must_use]
    pub const fn time(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit, better: Better::Lower }
    }
}

/// What Tailwater has to reach.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Which metric of the row, by its place.
    pub metric: usize,
    /// How far.
    pub bound: Bound,
}

/// How far Tailwater has to get.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Bound {
    /// The ratio to the bare baseline: at least this for a rate, at most this for a time.
    OfBare(f64),
    /// The ratio to the best of the published crates whose durable appends sync.
    OfBestCrate(f64),
    /// The figure itself, at most.
    AtMost(f64),
}

/// The part that a contestant plays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The bare baseline that ratios are taken against.
    Bare,
    /// What is to reach the targets.
    Tailwater,
    /// Shown for comparison.
    Shown,
    /// A published crate that keeps the promise of the row.
    Peer,
    /// A published crate that promises less than the row asks for.
    LesserPeer,
}

/// One who takes part in a row.
pub struct Contestant {
    /// Its name.
    pub name: String,
    /// Its part.
    pub role: Role,
    /// What it does and guarantees in this row.
    pub note: String,
    /// Runs a round and returns a figure for each metric of the row.
    pub round: Box<dyn FnMut() -> Result<Vec<f64>>>,
}

impl Contestant {
    /// Puts the parts together.
    pub fn new(
        name: impl Into<String>,
        role: Role,
        note: impl Into<String>,
        round: impl FnMut() -> Result<Vec<f64>> + 'static,
    ) -> Self {
        Self { name: name.into(), role, note: note.into(), round: Box::new(round) }
    }
}

/// A question, and how it is answered.
#[derive(Clone, Copy)]
pub struct Row {
    /// Its name on the command line and in file names.
    pub name: &'static str,
    /// The workload.
    pub title: &'static str,
    /// What is measured.
    pub metrics: &'static [Metric],
    /// What is to be reached.
    pub targets: &'static [Target],
    /// Prepares those who take part.
    pub prepare: fn(&Scale) -> Result<Vec<Contestant>>,
}

/// What one contestant did in a row.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// Its part.
    pub role: Role,
    /// What it does and guarantees.
    pub note: String,
    /// For each round a figure for each metric.
    pub rounds: Vec<Vec<f64>>,
}

impl Outcome {
    /// The figures of one metric, a round each.
    #[must_use]
    pub fn figures(&self, metric: usize) -> Vec<f64> {
        self.rounds.iter().map(|round| round[metric]).collect()
    }
}

/// Runs a row: `rounds` times every contestant, one after the other.
///
/// # Errors
///
/// Whatever went wrong, with the name of the contestant.
pub fn run(row: &Row, scale: &Scale, rounds: usize, progress: &mut dyn FnMut(&str)) -> Result<Vec<Outcome>> {
    progress(&format!("{}: preparing", row.name));
    let mut contestants = (row.prepare)(scale)?;
    let mut outcomes: Vec<Outcome> = contestants
        .iter()
        .map(|one| Outcome { name: one.name.clone(), role: one.role, note: one.note.clone(), rounds: vec![] })
        .collect();
    for round in 1..=rounds {
        for (contestant, outcome) in contestants.iter_mut().zip(&mut outcomes) {
            progress(&format!("{}: round {round} of {rounds}, {}", row.name, contestant.name));
            let figures = (contestant.round)().map_err(|error| format!("{}: {error}", contestant.name))?;
            assert_eq!(figures.len(), row.metrics.len(), "a round has a figure for each metric of its row");
            outcome.rounds.push(figures);
        }
    }
    Ok(outcomes)
}

/// Least, median and greatest of some figures.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spread {
    /// The least.
    pub least: f64,
    /// The median.
    pub median: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Spread {
    /// The spread of `figures`; not a number if there are none.
    #[must_use]
    pub fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
        let middle = figures.len() / 2;
        let median =
            if figures.len() % 2 == 1 { at(middle) } else { (at(middle.wrapping_sub(1)) + at(middle)) / 2.0 };
        Self { least: at(0), median, greatest: at(figures.len().wrapping_sub(1)) }
    }

    /// The spread of the ratios of two series, round by round.
    #[must_use]
    pub fn of_ratios(numerators: &[f64], denominators: &[f64]) -> Self {
        Self::of(numerators.iter().zip(denominators).map(|(one, other)| one / other).collect())
    }
}

/// How a target was met.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// Whom it is about.
    pub contestant: String,
    /// The metric's place.
    pub metric: usize,
    /// What was asked for.
    pub bound: Bound,
    /// The ratio, or for [`Bound::AtMost`] the figure; `None` if there was nobody to compare with.
    pub reached: Option<Spread>,
    /// Whether it is enough, by the median.
    pub is_met: bool,
}

/// Judges the outcomes of a row by its targets.
#[must_use]
pub fn judge(row: &Row, outcomes: &[Outcome]) -> Vec<Verdict> {
    let judged = outcomes.iter().filter(|outcome| outcome.role == Role::Tailwater);
    judged
        .flat_map(|outcome| row.targets.iter().map(move |target| verdict(row, outcomes, outcome, *target)))
        .collect()
}

fn verdict(row: &Row, outcomes: &[Outcome], judged: &Outcome, target: Target) -> Verdict {
    let better = row.metrics[target.metric].better;
    let figures = judged.figures(target.metric);
    let ratio = |other: Option<&Outcome>| Some(Spread::of_ratios(&figures, &other?.figures(target.metric)));
    let (reached, bound, better) = match target.bound {
        Bound::OfBare(bound) => (ratio(outcomes.iter().find(|one| one.role == Role::Bare)), bound, better),
        Bound::OfBestCrate(bound) => (ratio(best_crate(outcomes, target.metric, better)), bound, better),
        Bound::AtMost(bound) => (Some(Spread::of(figures)), bound, Better::Lower),
    };
    let is_met = reached.is_some_and(|reached| match better {
        Better::Higher => reached.median >= bound,
        Better::Lower => reached.median <= bound,
    });
    Verdict { contestant: judged.name.clone(), metric: target.metric, bound: target.bound, reached, is_met }
}

fn best_crate(outcomes: &[Outcome], metric: usize, better: Better) -> Option<&Outcome> {
    let median = |outcome: &&Outcome| Spread::of(outcome.figures(metric)).median;
    let crates = outcomes.iter().filter(|outcome| outcome.role == Role::Peer);
    match better {
        Better::Higher => crates.max_by(|one, other| median(one).total_cmp(&median(other))),
        Better::Lower => crates.min_by(|one, other| median(one).total_cmp(&median(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: &[Metric] = &[Metric::rate("records/s")];
    const ROW: Row = Row {
        name: "row",
        title: "a row",
        metrics: &[Metric::rate("records/s"), Metric::time("p50", "us")],
        targets: &[
            Target { metric: 0, bound: Bound::OfBare(0.9) },
            Target { metric: 0, bound: Bound::OfBestCrate(1.5) },
            Target { metric: 1, bound: Bound::OfBare(1.05) },
            Target { metric: 1, bound: Bound::AtMost(5.0) },
        ],
        prepare: |_| Ok(vec![]),
    };

    fn outcome(name: &str, role: Role, rounds: &[[f64; 2]]) -> Outcome {
        let rounds = rounds.iter().map(|round| round.to_vec()).collect();
        Outcome { name: name.into(), role, note: String::new(), rounds }
    }

    #[test]
    fn targets_are_judged_by_the_median_of_the_ratios_of_the_rounds() {
        let outcomes = [
            outcome("bare", Role::Bare, &[[100.0, 4.0], [50.0, 4.0], [100.0, 4.0]]),
            outcome("tailwater", Role::Tailwater, &[[95.0, 4.1], [47.0, 4.4], [10.0, 4.0]]),
            outcome("slow", Role::Peer, &[[10.0, 9.0]; 3]),
            outcome("quick", Role::Peer, &[[40.0, 9.0]; 3]),
            outcome("cheat", Role::LesserPeer, &[[1000.0, 1.0]; 3]),
        ];
        let verdicts = judge(&ROW, &outcomes);
        let met: Vec<_> = verdicts.iter().map(|verdict| verdict.is_met).collect();
        assert_eq!(met, [true, false, true, true]);
        assert_eq!(verdicts[0].reached.unwrap().median, 0.94);
        assert_eq!(verdicts[1].reached.unwrap().median, 47.0 / 40.0, "of the best that keeps the promise");
    }

    #[test]
    fn a_target_without_anybody_to_compare_with_is_not_met() {
        let outcomes = [outcome("tailwater", Role::Tailwater, &[[95.0, 4.1]])];
        let verdicts = judge(&ROW, &outcomes);
        assert_eq!((verdicts[1].reached, verdicts[1].is_met), (None, false));
        assert!(verdicts[3].is_met);
    }

    #[test]
    fn every_contestant_runs_in_every_round_in_order() {
        let row = Row {
            metrics: RATE,
            prepare: |_| {
                let one = |name: &'static str| Contestant::new(name, Role::Shown, "", || Ok(vec![1.0]));
                Ok(vec![one("a"), one("b")])
            },
            ..ROW
        };
        let scale = Scale { is_quick: true, work: "/".into(), open_bytes: vec![], peers: vec![] };
        let mut seen = String::new();
        let outcomes =
            run(&row, &scale, 2, &mut |line| seen.push(line.chars().last().unwrap_or(' '))).unwrap();
        assert_eq!(seen, "gabab");
        assert!(outcomes.iter().all(|outcome| outcome.rounds.len() == 2));
    }

    #[test]
    fn a_spread_has_the_middle_of_an_even_count_between_the_two() {
        let spread = Spread::of(vec![4.0, 1.0, 2.0, 3.0]);
        assert_eq!((spread.least, spread.median, spread.greatest), (1.0, 2.5, 4.0));
    }
}
