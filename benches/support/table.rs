//! The one table: each way with its time, its rate, and its ratio to the floor that was measured in the same rounds.

use super::rounds::{Row, Usage};

/// Prints a table in Markdown. The first row is the floor. `ratios` names the rows that the others are divided by, in a column
/// each: the floor, and what else is of interest. A column without figures is left out.
pub fn print(title: &str, ratios: &[&str], rows: &[Row]) {
    let shortest = rows.iter().filter_map(Row::median).fold(f64::INFINITY, f64::min);
    let (unit, per_second) = if shortest < 1e-4 {
        ("µs", 1e6)
    } else if shortest < 0.1 {
        ("ms", 1e3)
    } else {
        ("s", 1.0)
    };
    let time = |seconds: f64| figure(seconds * per_second);
    let gib = |row: &Row| row.bytes.map(|bytes| bytes as f64 / f64::from(1 << 30));
    let base = |name: &str| rows.iter().find(|row| row.name == name).and_then(Row::median);

    let mut columns = vec![
        column("", rows, |row| Some(row.name.clone())),
        column("method", rows, |row| row.method.clone()),
        column(&format!("median {unit}"), rows, |row| Some(row.median().map_or_else(|| failures(row), time))),
        column("min", rows, |row| row.median().and(row.seconds().first().copied()).map(time)),
        column("max", rows, |row| row.median().and(row.seconds().last().copied()).map(time)),
        column("GiB/s", rows, |row| Some(figure(gib(row)? / row.median()?))),
    ];
    columns.extend(ratios.iter().map(|name| column(&format!("× {name}"), rows, |row| Some(format!("{:.2}", row.median()? / base(name)?)))));
    // CPU time, calls and switches are for each GiB, so that runs of different sizes can be compared.
    let usage = |row: &Row, what: fn(Usage) -> f64| Some(figure(row.median_of(|run| run.usage.map(what))? / gib(row)?));
    columns.push(column("user s/GiB", rows, |row| usage(row, |usage| usage.user_seconds)));
    columns.push(column("system s/GiB", rows, |row| usage(row, |usage| usage.system_seconds)));
    columns.push(column("calls/GiB", rows, |row| Some(figure(row.calls? as f64 / gib(row)?))));
    columns.push(column("switches/GiB", rows, |row| usage(row, |usage| usage.switches)));
    columns.push(column("peak MiB", rows, |row| Some((row.peak()? >> 20).to_string())));
    columns.retain(|cells| cells[1..].iter().any(|cell| !cell.is_empty()));

    let rounds = rows.first().map_or(0, |row| row.runs.len());
    println!("{title}; {}\n", if rounds == 1 { "one round".into() } else { format!("medians of {rounds} rounds") });
    for line in 0..=rows.len() {
        println!("{}", joined(&columns, |cells, width, first| pad(&cells[line], width, first)));
        if line == 0 {
            println!("{}", joined(&columns, |_, width, first| "-".repeat(width - 1) + if first { "-" } else { ":" }));
        }
    }
    println!();
}

/// A heading and a cell for each row.
fn column(heading: &str, rows: &[Row], cell: impl Fn(&Row) -> Option<String>) -> Vec<String> {
    std::iter::once(heading.to_owned()).chain(rows.iter().map(|row| cell(row).unwrap_or_default())).collect()
}

/// A line of the table from a cell of each column, its width, and whether it is the first.
fn joined(columns: &[Vec<String>], cell: impl Fn(&[String], usize, bool) -> String) -> String {
    let width = |cells: &[String]| cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0).max(3);
    let cells: Vec<String> = columns.iter().enumerate().map(|(i, cells)| cell(cells, width(cells), i == 0)).collect();
    format!("| {} |", cells.join(" | "))
}

/// Names to the left, figures to the right.
fn pad(text: &str, width: usize, left: bool) -> String {
    if left { format!("{text:<width$}") } else { format!("{text:>width$}") }
}

fn failures(row: &Row) -> String {
    format!("failed {} of {}", row.runs.len() - row.seconds().len(), row.runs.len())
}

/// Three digits or more.
fn figure(number: f64) -> String {
    let decimals = if number >= 100.0 { 0 } else { 2 - usize::from(number >= 10.0) };
    format!("{number:.decimals$}")
}
