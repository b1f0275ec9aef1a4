//! Results as Markdown for people and as CSV for programs. Nothing in them is written by hand.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::contest::{Bound, Outcome, Result, Role, Row, Spread, judge};

/// A row with what came of it.
pub type Done<'r> = (&'r Row, Vec<Outcome>);

/// Writes `results.md`, with `head` and `tail` around the tables, `results.csv` and the plots into `directory`.
///
/// # Errors
///
/// What the operating system says, and errors of drawing.
pub fn write_all(directory: &Path, head: &str, tail: &str, done: &[Done<'_>]) -> Result<()> {
    fs::write(directory.join("results.md"), markdown(head, done) + tail)?;
    fs::write(directory.join("results.csv"), csv(done))?;
    for (row, outcomes) in done {
        crate::plot::bars(&directory.join(format!("{}.svg", row.name)), row, outcomes)?;
    }
    Ok(())
}

/// The targets in one table, and the figures of each row in one of its own.
#[must_use]
pub fn markdown(head: &str, done: &[Done<'_>]) -> String {
    format!("{head}\n\n{}{}", targets_table(done), figures(done))
}

/// The figures of each row in a table of its own.
#[must_use]
pub fn figures(done: &[Done<'_>]) -> String {
    let tables =
        done.iter().map(|(row, outcomes)| format!("\n## {}\n\n{}", row.title, figures_table(row, outcomes)));
    tables.collect()
}

fn targets_table(done: &[Done<'_>]) -> String {
    let mut out = String::from(
        "| Workload | Measured | Tailwater | Compared with | Ratio (least to greatest) | Target | Met |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for (row, outcomes) in done {
        for verdict in judge(row, outcomes) {
            let metric = row.metrics[verdict.metric];
            let own = outcomes.iter().find(|outcome| outcome.name == verdict.contestant);
            let own = own.map_or(f64::NAN, |own| Spread::of(own.figures(verdict.metric)).median);
            let (other, target) = match verdict.bound {
                Bound::OfBare(bound) => ("bare", format!("{bound}")),
                Bound::OfBestCrate(bound) => ("the best crate that syncs", format!("{bound}")),
                Bound::AtMost(bound) => ("", format!("at most {} {}", number(bound), metric.unit)),
            };
            let ratio = match (verdict.bound, verdict.reached) {
                (Bound::AtMost(_), _) => String::new(),
                (_, None) => "nobody to compare with".to_owned(),
                (_, Some(Spread { least, median, greatest })) => {
                    format!("{median:.2} ({least:.2} to {greatest:.2})")
                }
            };
            let met = match verdict.reached {
                None => "unknown",
                Some(_) if verdict.is_met => "yes",
                Some(_) => "**no**",
            };
            let who = verdict.contestant.strip_prefix("tailwater").unwrap_or(&verdict.contestant);
            let _ = writeln!(
                out,
                "| {}{who} | {} | {} {} | {other} | {ratio} | {target} | {met} |",
                row.title,
                metric.name,
                number(own),
                metric.unit,
            );
        }
    }
    out
}

fn figures_table(row: &Row, outcomes: &[Outcome]) -> String {
    let mut out = String::from("| |");
    for metric in row.metrics {
        let _ = write!(out, " {}, {} |", metric.name, metric.unit);
    }
    out.push_str(" what it does and guarantees |\n|---|");
    out.push_str(&"---|".repeat(row.metrics.len() + 1));
    for outcome in outcomes {
        let _ = write!(out, "\n| {} |", outcome.name);
        for metric in 0..row.metrics.len() {
            let Spread { least, median, greatest } = Spread::of(outcome.figures(metric));
            let _ = write!(out, " {} ({} to {}) |", number(median), number(least), number(greatest));
        }
        let lesser = if outcome.role == Role::LesserPeer { "**not synced**: " } else { "" };
        let _ = write!(out, " {lesser}{} |", outcome.note);
    }
    out.push('\n');
    out
}

/// One line for each figure of each round.
#[must_use]
pub fn csv(done: &[Done<'_>]) -> String {
    let mut out = String::from("row,contestant,metric,unit,round,figure\n");
    for (row, outcomes) in done {
        for outcome in outcomes {
            for (index, metric) in row.metrics.iter().enumerate() {
                for (round, figure) in outcome.figures(index).iter().enumerate() {
                    let _ = writeln!(
                        out,
                        "{},\"{}\",{},{},{},{figure}",
                        row.name,
                        outcome.name,
                        metric.name,
                        metric.unit,
                        round + 1,
                    );
                }
            }
        }
    }
    out
}

/// A figure with three significant digits, and a word for thousands and millions.
#[must_use]
pub fn number(figure: f64) -> String {
    let (figure, word) = match figure.abs() {
        size if size >= 1e6 => (figure / 1e6, " M"),
        size if size >= 1e4 => (figure / 1e3, " k"),
        _ => (figure, ""),
    };
    let digits = match figure.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{figure:.digits$}{word}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contest::{Metric, Target};

    const ROW: Row = Row {
        name: "row",
        title: "a row",
        metrics: &[Metric::rate("records/s")],
        targets: &[Target { metric: 0, bound: Bound::OfBare(0.9) }],
        prepare: |_| Ok(vec![]),
    };

    fn done() -> [Done<'static>; 1] {
        let outcome = |name: &str, role, figures: [f64; 3]| Outcome {
            name: name.into(),
            role,
            note: "a note".into(),
            rounds: figures.map(|figure| vec![figure]).to_vec(),
        };
        let bare = outcome("bare", Role::Bare, [2e6, 2e6, 4e6]);
        [(&ROW, vec![bare, outcome("tailwater", Role::Tailwater, [1e6, 1e6, 1e6])])]
    }

    #[test]
    fn a_missed_target_stays_in_the_table_with_its_ratio_and_spread() {
        let text = markdown("# Results", &done());
        let wanted = "| a row | rate | 1.00 M records/s | bare | 0.50 (0.25 to 0.50) | 0.9 | **no** |";
        assert!(text.contains(wanted), "{text}");
        assert!(text.contains("| bare | 2.00 M (2.00 M to 4.00 M) | a note |"), "{text}");
    }

    #[test]
    fn every_figure_of_every_round_is_in_the_csv() {
        let text = csv(&done());
        assert_eq!(text.lines().count(), 7);
        assert!(text.contains("row,\"bare\",rate,records/s,3,4000000\n"), "{text}");
    }

    #[test]
    fn numbers_have_three_digits() {
        let texts = [1_234_567.0, 56_789.0, 1_234.0, 123.4, 12.34, 0.123].map(number);
        assert_eq!(texts, ["1.23 M", "56.8 k", "1234", "123", "12.3", "0.12"]);
    }
}
