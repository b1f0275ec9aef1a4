//! Plots as SVG: bars for a row of the comparison, curves for what grows.

use std::path::Path;

use plotters::coord::ranged1d::Ranged;
use plotters::prelude::*;

use crate::contest::{Outcome, Result, Role, Row, Spread};

const WIDTH: u32 = 900;
const HEIGHT: u32 = 500;
const FONT: &str = "sans-serif";

/// Draws the first metric of a row: a bar for the median of each contestant, a line from its least to its greatest figure.
///
/// # Errors
///
/// Errors of drawing.
pub fn bars(path: &Path, row: &Row, outcomes: &[Outcome]) -> Result<()> {
    let Some(metric) = row.metrics.first() else { return Ok(()) };
    let spreads: Vec<Spread> = outcomes.iter().map(|outcome| Spread::of(outcome.figures(0))).collect();
    let top = spreads.iter().map(|spread| spread.greatest).fold(0.0, f64::max) * 1.1;
    let height = 90 + 34 * u32::try_from(outcomes.len())?;
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(row.title, (FONT, 18))
        .margin(10)
        .margin_right(30)
        .x_label_area_size(36)
        .y_label_area_size(170)
        .build_cartesian_2d(0.0..top.max(f64::MIN_POSITIVE), 0.0..outcomes.len() as f64)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .disable_y_mesh()
        .y_labels(0)
        .x_label_formatter(&|figure| crate::report::number(*figure))
        .x_desc(format!("{}, {}", metric.name, metric.unit))
        .label_style((FONT, 13))
        .draw()?;
    for (index, (outcome, spread)) in outcomes.iter().zip(&spreads).rev().enumerate() {
        let middle = index as f64 + 0.5;
        let bar = Rectangle::new(
            [(0.0, middle - 0.35), (spread.median, middle + 0.35)],
            color(outcome.role).filled(),
        );
        chart.draw_series(std::iter::once(bar))?;
        let whisker = [(spread.least, middle), (spread.greatest, middle)];
        chart.draw_series(std::iter::once(PathElement::new(whisker, BLACK.stroke_width(2))))?;
        let name_at = (12, chart.backend_coord(&(0.0, middle)).1 - 6);
        area.draw(&Text::new(outcome.name.clone(), name_at, (FONT, 13)))?;
    }
    area.present()?;
    Ok(())
}

fn color(role: Role) -> RGBColor {
    match role {
        Role::Tailwater => RGBColor(31, 119, 180),
        Role::Bare => RGBColor(90, 90, 90),
        Role::Shown => RGBColor(170, 170, 170),
        Role::Peer => RGBColor(255, 152, 60),
        Role::LesserPeer => RGBColor(255, 214, 170),
    }
}

/// A curve: its name and its points.
pub type Curve = (String, Vec<(f64, f64)>);

/// What a plot of curves says beside them.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'l> {
    /// Above it.
    pub title: &'l str,
    /// Along the x axis, which is logarithmic.
    pub x: &'l str,
    /// Along the y axis, which begins at 0.
    pub y: &'l str,
}

/// Draws curves over a logarithmic x axis.
///
/// # Errors
///
/// Errors of drawing.
pub fn curves(path: &Path, labels: Labels<'_>, curves: &[Curve]) -> Result<()> {
    let points = || curves.iter().flat_map(|(_, points)| points);
    let least = points().map(|(x, _)| *x).fold(f64::INFINITY, f64::min);
    let greatest = points().map(|(x, _)| *x).fold(0.0, f64::max);
    let top = points().map(|(_, y)| *y).fold(0.0, f64::max) * 1.15;
    if !least.is_finite() {
        return Err(format!("there is nothing to draw for {:?}", labels.title).into());
    }
    let area = SVGBackend::new(path, (WIDTH, HEIGHT)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(labels.title, (FONT, 18))
        .margin(10)
        .margin_right(30)
        .x_label_area_size(40)
        .y_label_area_size(80)
        .build_cartesian_2d(
            (least..greatest.max(least * 2.0)).log_scale(),
            0.0..top.max(f64::MIN_POSITIVE),
        )?;
    configure(&mut chart, labels)?;
    for (index, (name, points)) in curves.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font((FONT, 13))
        .draw()?;
    area.present()?;
    Ok(())
}

fn configure<X, Y>(
    chart: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, Y>>,
    labels: Labels<'_>,
) -> Result<()>
where
    X: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
{
    let number = |figure: &f64| crate::report::number(*figure);
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .x_desc(labels.x)
        .y_desc(labels.y)
        .label_style((FONT, 13))
        .draw()
        .map_err(|error| error.to_string())?;
    Ok(())
}
