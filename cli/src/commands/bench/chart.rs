//! The report as one picture: latency by load, percentiles, and what clients see while a leader is killed.

use std::collections::BTreeMap;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::failover::Failover;
use super::row::Row;
use super::systems::ClientKind;
use crate::failure::{Failure, Result};

const WIDTH: u32 = 960;
const HEIGHT: u32 = 1500;
const FONT: &str = "sans-serif";

/// Told apart by colour: reference grey, then one for each other series.
const GREY: RGBColor = RGBColor(120, 120, 120);
const GREYS: [RGBColor; 3] = [GREY, RGBColor(60, 60, 60), RGBColor(185, 185, 185)];
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 95, 14),
    RGBColor(44, 140, 80),
    RGBColor(148, 70, 160),
    RGBColor(180, 40, 60),
    RGBColor(20, 150, 160),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// Writes a value at an axis.
type Label<'a> = &'a dyn Fn(&f64) -> String;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// Points of one line.
struct Series {
    name: String,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
}

/// Writes the picture.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write(path: &Path, rows: &[Row], failover: &Failover) -> Result {
    let text = render(rows, failover)
        .map_err(|error| Failure::failed(format!("cannot draw the report: {error}")))?;
    std::fs::write(path, text)
        .map_err(|error| Failure::io(format_args!("cannot write {}", path.display()), &error))
}

fn render(
    rows: &[Row],
    failover: &Failover,
) -> std::result::Result<String, Box<dyn std::error::Error>> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT)).into_drawing_area();
        root.fill(&WHITE)?;
        let areas = root.split_evenly((3, 1));
        if let [load, percentiles, timeline] = areas.as_slice() {
            latency_by_load(load, rows)?;
            curves(percentiles, rows)?;
            outage(timeline, failover)?;
        }
        root.present()?;
    }
    Ok(text)
}

/// What a line stands for: everything but the load.
fn name(row: &Row) -> String {
    let case = &row.case;
    let mut name = format!("{} {}", row.system, case.flush);
    let mut add = |given: bool, text: String| {
        if given {
            name.push_str(", ");
            name.push_str(&text);
        }
    };
    add(row.client == ClientKind::Embedded, "embedded".to_owned());
    add(case.size != 1024, format!("{} B", case.size));
    add(case.logs != 1, format!("{} logs", case.logs));
    add(case.batch != 1, format!("batches of {}", case.batch));
    name
}

fn colour(system: &str, number: usize) -> RGBColor {
    match system {
        "reference" => GREYS[number % GREYS.len()],
        _ => COLOURS[number % COLOURS.len()],
    }
}

/// From the smallest to the largest value of a logarithmic axis, with room around.
fn range(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let (low, high) = values
        .filter(|value| *value > 0.0)
        .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    if high > 0.0 { low / 1.5..high * 1.5 } else { 1.0..10.0 }
}

fn micros(us: &f64) -> String {
    match *us {
        us if us < 1e3 => format!("{us:.0} us"),
        us if us < 1e6 => format!("{} ms", us / 1e3),
        us => format!("{} s", us / 1e6),
    }
}

fn count(value: &f64) -> String {
    if *value >= 1e3 { format!("{}k", value / 1e3) } else { format!("{value:.0}") }
}

/// Lines with points on two logarithmic axes.
fn lines(
    area: &Area<'_>,
    title: &str,
    axes: (&str, &str),
    labels: (Label<'_>, Label<'_>),
    series: &[Series],
) -> Drawn {
    let points = || series.iter().flat_map(|series| series.points.iter());
    let (x, y) = (range(points().map(|point| point.0)), range(points().map(|point| point.1)));
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 20))
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(72)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(axes.0)
        .y_desc(axes.1)
        .x_label_formatter(labels.0)
        .y_label_formatter(labels.1)
        .label_style((FONT, 14))
        .draw()?;
    for line in series {
        let style = line.colour.stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), style).point_size(3))?
            .label(line.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(GREY.mix(0.5))
        .label_font((FONT, 14))
        .draw()?;
    Ok(())
}

fn latency_by_load(area: &Area<'_>, rows: &[Row]) -> Drawn {
    let mut by_name: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.ops_s > 0.0) {
        by_name.entry(name(row)).or_default().push(row);
    }
    let mut series = Vec::new();
    for (number, (name, rows)) in by_name.into_iter().enumerate() {
        let colour = colour(rows.first().map_or("", |row| row.system), number);
        let points = |of: fn(&Row) -> u64| {
            let mut points: Vec<(f64, f64)> =
                rows.iter().map(|row| (row.ops_s, of(row) as f64)).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            points
        };
        let (p50, p99) = (points(|row| row.p50_us), points(|row| row.p99_us));
        series.push(Series { name: format!("{name}, p50"), colour, points: p50 });
        let paler = |part: u8| part / 2 + 127;
        let colour = RGBColor(paler(colour.0), paler(colour.1), paler(colour.2));
        series.push(Series { name: format!("{name}, p99"), colour, points: p99 });
    }
    let axes = ("records a second", "latency");
    lines(area, "Latency by load", axes, (&count, &micros), &series)
}

/// Of the case with most clients of each system.
fn curves(area: &Area<'_>, rows: &[Row]) -> Drawn {
    let most = rows.iter().map(|row| row.case.clients).max().unwrap_or(0);
    let of_most = rows.iter().filter(|row| row.case.clients == most);
    let series: Vec<Series> = of_most
        .enumerate()
        .map(|(number, row)| Series {
            name: match row.case.rate {
                Some(rate) => format!("{}, {rate}/s", name(row)),
                None => name(row),
            },
            colour: colour(row.system, number),
            // One in so many is slower.
            points: row.curve.iter().map(|(q, us)| (1.0 / (1.0 - q), *us as f64)).collect(),
        })
        .collect();
    let percentile = |one_in: &f64| format!("{}%", 100.0 - 100.0 / one_in);
    let title = format!("Percentiles, {most} clients");
    lines(area, &title, ("percentile", "latency"), (&percentile, &micros), &series)
}

fn outage(area: &Area<'_>, failover: &Failover) -> Drawn {
    let spans = &failover.spans;
    let end = spans.last().map_or(1.0, |span| span.at);
    let high = spans.iter().map(|span| span.appends_s).fold(1.0, f64::max) * 1.15;
    let outage = match failover.outage_ms {
        Some(ms) => format!("{ms} ms until an append is acknowledged again"),
        None => "no append was acknowledged again".to_owned(),
    };
    let mut chart = ChartBuilder::on(area)
        .caption(format!("A killed leader, {}: {outage}", failover.case), (FONT, 20))
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..end, 0.0..high)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("seconds")
        .y_desc("appends a second")
        .y_label_formatter(&count)
        .label_style((FONT, 14))
        .draw()?;
    let points = spans.iter().map(|span| (span.at, span.appends_s));
    chart.draw_series(LineSeries::new(points, COLOURS[0].stroke_width(2)))?;
    let marks = [(failover.killed_at, "SIGKILL"), (failover.restarted_at, "started again")];
    for (at, text) in marks {
        let line = [(at, 0.0), (at, high)];
        chart.draw_series(LineSeries::new(line, COLOURS[4].stroke_width(1)))?;
        let style = (FONT, 14).into_text_style(area).color(&COLOURS[4]);
        chart.draw_series([Text::new(text, (at + end / 200.0, high * 0.97), style)])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::{case, row};
    use super::super::timeline::Span;
    use super::*;

    #[test]
    fn the_picture_shows_every_system_and_the_kill() {
        let curve = vec![(0.5, 300), (0.99, 900), (0.999, 4000)];
        let ours = Row { curve: curve.clone(), p99_us: 2000, ..row() };
        let faster = Row { ops_s: 50_000.0, p50_us: 400, curve, ..row() };
        let reference = Row { system: "reference", ..faster };
        let spans = (0..100)
            .map(|n| Span { at: f64::from(n) * 0.05, appends_s: 1000.0, ..Span::default() })
            .collect();
        let failover = Failover {
            case: case(),
            killed: 2,
            killed_at: 2.0,
            restarted_at: 4.0,
            outage_ms: Some(700),
            errors: 3,
            spans,
        };
        let text = render(&[reference, ours], &failover).expect("drawn");
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        for part in ["reference sync, p50", "quorumlog sync, p99", "SIGKILL", "700 ms until", "99%"]
        {
            assert!(text.contains(part), "{part}");
        }
    }

    #[test]
    fn nothing_measured_is_an_empty_picture() {
        let failover = Failover {
            case: case(),
            killed: 0,
            killed_at: 0.0,
            restarted_at: 0.0,
            outage_ms: None,
            errors: 0,
            spans: Vec::new(),
        };
        assert!(render(&[], &failover).expect("drawn").contains("no append was acknowledged"));
    }
}
