//! Figures over something that grows, as Markdown, CSV and an SVG for each plot.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::contest::Result;
use crate::plot::{Curve, Labels, curves};
use crate::report::number;

/// A column of figures.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its unit. Columns of one unit are drawn in one plot.
    pub unit: &'static str,
}

/// Figures that belong to growing values of one thing.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name, and that of its files.
    pub name: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// What grows, with its unit.
    pub grows: &'static str,
    /// What is measured.
    pub columns: &'static [Column],
    /// For each value of what grows a figure for each column; not a number where there is none.
    pub rows: Vec<(f64, Vec<f64>)>,
}

impl Series {
    /// Begins a series without figures.
    #[must_use]
    pub fn new(
        name: &'static str,
        title: &'static str,
        grows: &'static str,
        columns: &'static [Column],
    ) -> Self {
        Self { name, title, grows, columns, rows: vec![] }
    }

    /// Adds the figures for one value of what grows.
    ///
    /// # Panics
    ///
    /// If there is not one for each column.
    pub fn add(&mut self, value: f64, figures: Vec<f64>) {
        assert_eq!(figures.len(), self.columns.len(), "there is a figure for each column");
        self.rows.push((value, figures));
    }

    /// Writes `NAME.md`, `NAME.csv` and a plot for each unit into `directory`. Returns the Markdown.
    ///
    /// # Errors
    ///
    /// What the operating system says, and errors of drawing.
    pub fn write(&self, directory: &Path, head: &str) -> Result<String> {
        let text = format!("{head}\n\n{}", self.markdown());
        fs::write(directory.join(format!("{}.md", self.name)), &text)?;
        fs::write(directory.join(format!("{}.csv", self.name)), self.csv())?;
        for (place, column) in self.columns.iter().enumerate() {
            let is_first_of_unit = !self.columns[..place].iter().any(|earlier| earlier.unit == column.unit);
            if is_first_of_unit {
                self.draw(directory, place)?;
            }
        }
        Ok(text)
    }

    /// Draws all columns that have the unit of the one at `place`.
    fn draw(&self, directory: &Path, place: usize) -> Result<()> {
        let unit = self.columns[place].unit;
        let drawn = self.columns.iter().enumerate().filter(|(_, column)| column.unit == unit);
        let lines: Vec<Curve> = drawn
            .map(|(index, column)| (column.name.to_owned(), self.points(index)))
            .filter(|(_, points)| !points.is_empty())
            .collect();
        if lines.is_empty() {
            return Ok(());
        }
        let suffix = if place == 0 { String::new() } else { format!("-{}", place + 1) };
        let labels = Labels { title: self.title, x: self.grows, y: unit };
        curves(&directory.join(format!("{}{suffix}.svg", self.name)), labels, &lines)
    }

    fn points(&self, column: usize) -> Vec<(f64, f64)> {
        let points = self.rows.iter().map(|(value, figures)| (*value, figures[column]));
        points.filter(|(_, figure)| figure.is_finite()).collect()
    }

    fn markdown(&self) -> String {
        let mut out = format!("## {}\n\n| {} |", self.title, self.grows);
        for column in self.columns {
            let _ = write!(out, " {}, {} |", column.name, column.unit);
        }
        out.push_str("\n|---|");
        out.push_str(&"---|".repeat(self.columns.len()));
        out.push('\n');
        for (value, figures) in &self.rows {
            let _ = write!(out, "| {value} |");
            for figure in figures {
                let text = if figure.is_finite() { number(*figure) } else { String::new() };
                let _ = write!(out, " {text} |");
            }
            out.push('\n');
        }
        out
    }

    fn csv(&self) -> String {
        let mut out = format!("{:?}", self.grows);
        self.columns
            .iter()
            .for_each(|column| out.push_str(&format!(",\"{}, {}\"", column.name, column.unit)));
        out.push('\n');
        for (value, figures) in &self.rows {
            let _ = write!(out, "{value}");
            figures.iter().for_each(|figure| out.push_str(&format!(",{figure}")));
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_figure_is_an_empty_cell() {
        const COLUMNS: &[Column] =
            &[Column { name: "append", unit: "MB/s" }, Column { name: "read", unit: "us" }];
        let mut series = Series::new("size", "as it grows", "MiB", COLUMNS);
        series.add(1.0, vec![900.0, f64::NAN]);
        series.add(2.0, vec![800.0, 1.5]);
        let directory = tempfile::tempdir().unwrap();
        let text = series.write(directory.path(), "# Growth").unwrap();
        assert!(
            text.contains(
                "| MiB | append, MB/s | read, us |\n|---|---|---|\n| 1 | 900 |  |\n| 2 | 800 | 1.50 |"
            ),
            "{text}"
        );
        for file in ["size.md", "size.csv", "size.svg", "size-2.svg"] {
            assert!(directory.path().join(file).metadata().unwrap().len() > 50, "{file}");
        }
    }
}
