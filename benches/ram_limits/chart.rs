//! Pictures of what was measured.

use std::path::Path;

use plotters::prelude::*;

/// A line with its name.
pub type Line = (String, Vec<(f64, f64)>);

const SIZE: (u32, u32) = (1120, 500);
const LEGEND_WIDTH: u32 = 320;
const COLOURS: [RGBColor; 10] = [
    RGBColor(120, 120, 120),
    RGBColor(190, 190, 190),
    RGBColor(214, 39, 40),
    RGBColor(255, 127, 14),
    RGBColor(31, 119, 180),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(227, 119, 194),
    RGBColor(23, 190, 207),
];

/// Draws `lines`; `ticks` are the only places named on the x axis, if there are any. `limit` is drawn across.
pub fn draw(
    path: &Path,
    title: &str,
    axes: (&str, &str),
    lines: &[Line],
    ticks: &[(f64, String)],
    limit: Option<(f64, String)>,
) -> Result<(), Box<dyn std::error::Error>> {
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let left = if ticks.is_empty() { 0.0 } else { ticks[0].0 - 0.5 };
    let right = points().map(|p| p.0).fold(0.0, f64::max).max(1e-3);
    let right = if ticks.is_empty() { right * 1.02 } else { right + 0.5 };
    let top = points().map(|p| p.1).chain(limit.iter().map(|l| l.0)).fold(0.0, f64::max).max(1e-3) * 1.08;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .margin_right(LEGEND_WIDTH)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(left..right, 0.0..top)?;
    let name_tick = |x: &f64| {
        if ticks.is_empty() {
            return format!("{x:.1}");
        }
        ticks.iter().find(|(at, _)| (at - x).abs() < 1e-6).map_or_else(String::new, |(_, name)| name.clone())
    };
    let name_height = |y: &f64| if top > 20.0 { format!("{y:.0}") } else { format!("{y:.1}") };
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(axes.0).y_desc(axes.1).x_label_formatter(&name_tick).y_label_formatter(&name_height).light_line_style(WHITE);
    if !ticks.is_empty() {
        mesh.x_labels(ticks.len() + 1).disable_x_mesh();
    }
    mesh.draw()?;
    let mut names = Vec::new();
    if let Some((height, name)) = limit {
        let across = [(left, height), (right, height)];
        chart.draw_series(DashedLineSeries::new(across, 6, 4, BLACK.stroke_width(1)))?;
        names.push((name, BLACK));
    }
    for (i, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let series = LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(if ticks.is_empty() { 0 } else { 3 });
        chart.draw_series(series)?;
        names.push((name.clone(), colour));
    }
    // Beside the plot, where no line runs.
    let left = i32::try_from(SIZE.0 - LEGEND_WIDTH)? + 6;
    let key = |row: usize| -> Result<i32, std::num::TryFromIntError> { Ok(52 + 15 * i32::try_from(row)?) };
    for (row, (name, colour)) in names.iter().enumerate() {
        area.draw(&PathElement::new([(left, key(row)?), (left + 18, key(row)?)], colour.stroke_width(2)))?;
        area.draw(&Text::new(name.as_str(), (left + 24, key(row)? - 5), ("sans-serif", 12)))?;
    }
    area.present()?;
    Ok(())
}
