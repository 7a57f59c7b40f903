//! Charts as inline SVG: lines over time with shaded spans, and the percentiles of a distribution.
//!
//! Plain data in, a [`Drawing`] out. A value that is not finite is a gap in its line, and so is 0 on a
//! logarithmic scale. Text and axes take the colour of the page around them; lines have colours that
//! can be read on white and on black.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Escaped;
use super::axis::{self, Axis};

/// Points that a line is drawn with; of more, each stretch keeps its lowest and its highest.
pub const POINTS_MAX: usize = 4000;
/// Size of a drawing in its own units; a page scales it to its width.
const SIZE: (u32, u32) = (1200, 380);
/// What is drawn in this becomes the colour of the page's text.
const INK: RGBColor = RGBColor(0, 0, 0);
const INK_IN_SVG: &str = "\"#000000\"";
const LABEL_PX: i32 = 16;
/// Lines in turn.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x3B, 0x82, 0xC4),
    RGBColor(0xD9, 0x6B, 0x27),
    RGBColor(0x2E, 0x9E, 0x6B),
    RGBColor(0xA8, 0x5B, 0xC4),
    RGBColor(0xC4, 0x3B, 0x5A),
    RGBColor(0x8A, 0x8A, 0x2E),
];
const SPAN_COLOUR: RGBColor = RGBColor(0xC4, 0x3B, 0x3B);
/// Rows for the labels of spans, so that neighbours do not stand on each other.
const SPAN_ROWS: usize = 4;

/// Why a chart could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("draw the chart {title:?}: {why}")]
pub struct ChartError {
    title: String,
    why: String,
}

/// A finished chart: SVG with its legend, made here and nowhere else.
#[derive(Debug, Clone)]
pub struct Drawing {
    html: String,
}

impl Drawing {
    /// The chart as HTML, already escaped.
    pub(super) fn as_html(&self) -> &str {
        &self.html
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Seconds and values, by time.
    pub points: Vec<(f64, f64)>,
}

impl Series {
    /// A line of these points.
    pub fn new(name: &str, points: Vec<(f64, f64)>) -> Self {
        Self {
            name: name.to_owned(),
            points,
        }
    }
}

/// A stretch of time that is shaded, a fault for example.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// What stands above it.
    pub label: String,
    /// Its beginning, in seconds.
    pub from_s: f64,
    /// Its end, in seconds.
    pub to_s: f64,
}

/// Lines over time.
#[derive(Debug, Clone, PartialEq)]
pub struct Lines {
    /// What a screen reader is told.
    pub title: String,
    /// What the values are, with their unit.
    pub y_label: String,
    /// Whether the values' scale is logarithmic.
    pub is_log: bool,
    /// The lines.
    pub series: Vec<Series>,
    /// The shaded stretches.
    pub spans: Vec<Span>,
}

impl Lines {
    /// Draws it. Without a single point there are only axes.
    pub fn draw(&self) -> Result<Drawing, ChartError> {
        let is_drawn = |value: f64| value.is_finite() && (!self.is_log || value > 0.0);
        let points = || self.series.iter().flat_map(|series| &series.points);
        let times = points()
            .map(|(time_s, _)| *time_s)
            .chain(self.spans.iter().flat_map(|span| [span.from_s, span.to_s]));
        let (first_s, last_s) = bounds(times.filter(|time_s| time_s.is_finite())).unwrap_or((0.0, 1.0));
        let values = bounds(points().map(|(_, value)| *value).filter(|value| is_drawn(*value)));
        let (low, high) = values.unwrap_or((0.0, 1.0));
        let frame = Frame {
            title: &self.title,
            x: Axis::linear(first_s, last_s),
            x_label: "seconds",
            x_text: axis::short,
            y: if self.is_log {
                Axis::log(low, high)
            } else {
                Axis::from_zero(high)
            },
            y_label: &self.y_label,
        };
        let lines: Vec<Line> = self
            .series
            .iter()
            .map(|series| Line {
                name: &series.name,
                pieces: pieces(&series.points, is_drawn),
            })
            .collect();
        frame.draw(&lines, &self.spans)
    }
}

/// Distributions as HdrHistogram plots them: each further nine is as wide as the one before.
#[derive(Debug, Clone, PartialEq)]
pub struct Percentiles {
    /// What a screen reader is told.
    pub title: String,
    /// What the values are, with their unit.
    pub y_label: String,
    /// Names, with quantiles (0 to below 1) and values.
    pub series: Vec<(String, Vec<(f64, f64)>)>,
}

impl Percentiles {
    /// Draws it.
    pub fn draw(&self) -> Result<Drawing, ChartError> {
        let lines: Vec<Line> = self
            .series
            .iter()
            .map(|(name, points)| {
                let points: Vec<(f64, f64)> = points
                    .iter()
                    .filter(|(quantile, _)| (0.0..1.0).contains(quantile))
                    .map(|(quantile, value)| (1.0 / (1.0 - quantile), *value))
                    .collect();
                Line {
                    name,
                    pieces: pieces(&points, |value| value.is_finite() && value > 0.0),
                }
            })
            .collect();
        let points = || lines.iter().flat_map(|line| line.pieces.iter().flatten());
        let (low, high) = bounds(points().map(|(_, value)| *value)).unwrap_or((1.0, 10.0));
        let (_, last) = bounds(points().map(|(x, _)| *x)).unwrap_or((1.0, 100.0));
        let frame = Frame {
            title: &self.title,
            x: Axis::log_exactly(1.0, last.max(10.0)),
            x_label: "percentile",
            x_text: axis::percentile,
            y: Axis::log(low, high),
            y_label: &self.y_label,
        };
        frame.draw(&lines, &[])
    }
}

/// The quantiles of a histogram for [`Percentiles`], its values divided by `per_unit`. The last one is
/// the largest value, at the quantile that its count can tell.
pub fn quantiles(histogram: &Histogram<u64>, per_unit: f64) -> Vec<(f64, f64)> {
    let count = histogram.len();
    if count == 0 {
        return Vec::new();
    }
    let last = 1.0 - 1.0 / (count as f64 + 1.0);
    let mut points: Vec<(f64, f64)> = histogram
        .iter_quantiles(5)
        .map(|step| {
            let quantile = step.quantile_iterated_to().min(last);
            (quantile, step.value_iterated_to() as f64 / per_unit)
        })
        .collect();
    points.push((last, histogram.max() as f64 / per_unit));
    points
}

/// A line as it is drawn, gaps between its pieces.
struct Line<'a> {
    name: &'a str,
    pieces: Vec<Vec<(f64, f64)>>,
}

/// What all charts have.
struct Frame<'a> {
    title: &'a str,
    x: Axis,
    x_label: &'a str,
    x_text: fn(f64) -> String,
    y: Axis,
    y_label: &'a str,
}

type Canvas<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;
type DrawError<'b> = DrawingAreaErrorKind<<SVGBackend<'b> as DrawingBackend>::ErrorType>;

impl Frame<'_> {
    fn draw(&self, lines: &[Line<'_>], spans: &[Span]) -> Result<Drawing, ChartError> {
        let mut svg = String::new();
        self.draw_svg(&mut svg, lines, spans)
            .map_err(|error| ChartError {
                title: self.title.to_owned(),
                why: error.to_string(),
            })?;
        let head = format!("<svg role=\"img\" aria-label=\"{}\" ", Escaped(self.title));
        let mut html = svg
            .replacen("<svg ", &head, 1)
            .replace(INK_IN_SVG, "\"currentColor\"")
            // The backend escapes markup and lets these through.
            .replace(|c: char| c.is_control() && c != '\n', "\u{FFFD}");
        html.push_str("\n<p class=\"legend\">");
        for (line, RGBColor(red, green, blue)) in lines.iter().zip(COLOURS.iter().cycle()) {
            let name = Escaped(line.name);
            let _ = write!(
                html,
                "<span><i style=\"background:#{red:02x}{green:02x}{blue:02x}\"></i>{name}</span>"
            );
        }
        html.push_str("</p>\n");
        Ok(Drawing { html })
    }

    fn draw_svg<'b>(
        &self,
        svg: &'b mut String,
        lines: &[Line<'_>],
        spans: &[Span],
    ) -> Result<(), DrawError<'b>> {
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(52)
            .y_label_area_size(84)
            .build_cartesian_2d(self.x, self.y)?;
        let label = ("sans-serif", LABEL_PX).into_font().color(&INK);
        chart
            .configure_mesh()
            .x_desc(self.x_label)
            .y_desc(self.y_label)
            .label_style(label.clone())
            .axis_desc_style(label)
            .axis_style(INK.mix(0.5))
            .bold_line_style(INK.mix(0.15))
            .light_line_style(INK.mix(0.0))
            .x_label_formatter(&|value| (self.x_text)(*value))
            .y_label_formatter(&|value| axis::short(*value))
            .draw()?;
        self.draw_spans(&mut chart, spans)?;
        for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
            for piece in &line.pieces {
                if let [point] = piece[..] {
                    chart.draw_series([Circle::new(point, 2, colour.filled())])?;
                } else {
                    chart.draw_series(LineSeries::new(piece.iter().copied(), colour.stroke_width(2)))?;
                }
            }
        }
        drop(chart);
        area.present()
    }

    fn draw_spans<'b>(&self, chart: &mut Canvas<'_, 'b>, spans: &[Span]) -> Result<(), DrawError<'b>> {
        let (low, high) = self.y.ends();
        let (width, height) = chart.plotting_area().dim_in_pixel();
        let (first_s, last_s) = self.x.ends();
        for (index, span) in spans.iter().enumerate() {
            let (from_s, to_s) = (span.from_s.max(first_s), span.to_s.min(last_s));
            let corners = [(from_s, low), (to_s, high)];
            chart.draw_series([Rectangle::new(corners, SPAN_COLOUR.mix(0.16).filled())])?;
            // An instant has no width, and is to be seen all the same.
            let edge = [(from_s, low), (from_s, high)];
            chart.draw_series(LineSeries::new(edge, SPAN_COLOUR.mix(0.6).stroke_width(1)))?;
            let share = (from_s - first_s) / (last_s - first_s);
            let is_late = share > 0.8;
            let style = ("sans-serif", LABEL_PX - 3).into_font().color(&INK).pos(Pos::new(
                if is_late { HPos::Right } else { HPos::Left },
                VPos::Top,
            ));
            let row = (index % SPAN_ROWS) as i32 * (LABEL_PX + 2);
            let gap = if is_late { -4 } else { 4 };
            let at = ((share * f64::from(width)) as i32 + gap, row.min(height as i32));
            chart
                .plotting_area()
                .strip_coord_spec()
                .draw(&Text::new(span.label.clone(), at, style))?;
        }
        Ok(())
    }
}

/// The smallest and the largest.
fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |found, value| match found {
        None => Some((value, value)),
        Some((low, high)) => Some((low.min(value), high.max(value))),
    })
}

/// The line without what is not drawn, cut there, and thinned to [`POINTS_MAX`].
fn pieces(points: &[(f64, f64)], is_drawn: impl Fn(f64) -> bool) -> Vec<Vec<(f64, f64)>> {
    let stretch = (points.len() * 2).div_ceil(POINTS_MAX).max(1);
    points
        .split(|(x, value)| !x.is_finite() || !is_drawn(*value))
        .filter(|piece| !piece.is_empty())
        .map(|piece| thinned(piece, stretch))
        .collect()
}

/// Of each stretch of so many points the lowest and the highest, in their order.
fn thinned(points: &[(f64, f64)], stretch: usize) -> Vec<(f64, f64)> {
    if stretch <= 2 {
        return points.to_vec();
    }
    points
        .chunks(stretch)
        .flat_map(|chunk| {
            let by_value = |place: &usize| (chunk[*place].1, *place);
            let places = || 0..chunk.len();
            let compare = |a: &usize, b: &usize| {
                let ((a, a_place), (b, b_place)) = (by_value(a), by_value(b));
                a.total_cmp(&b).then(a_place.cmp(&b_place))
            };
            let low = places().min_by(compare).unwrap_or_default();
            let high = places().max_by(compare).unwrap_or_default();
            let mut kept = vec![low.min(high), low.max(high)];
            kept.dedup();
            kept.into_iter().map(|place| chunk[place]).collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(points: Vec<(f64, f64)>, is_log: bool) -> Lines {
        Lines {
            title: "t".into(),
            y_label: "ms".into(),
            is_log,
            series: vec![Series::new("p99", points)],
            spans: vec![Span {
                label: "F01 node 2".into(),
                from_s: 1.0,
                to_s: 1.0,
            }],
        }
    }

    #[test]
    fn a_chart_has_its_lines_spans_and_the_pages_ink() {
        let drawing = lines(vec![(0.0, 1.0), (1.0, 3.0), (2.0, 2.0)], true)
            .draw()
            .unwrap();
        let html = drawing.as_html();
        assert!(html.contains("polyline") && html.contains("F01 node 2") && html.contains("p99"));
        assert!(html.contains("currentColor") && !html.contains(INK_IN_SVG));
        assert!(html.starts_with("<svg role=\"img\" aria-label=\"t\""));
    }

    #[test]
    fn what_cannot_be_drawn_is_a_gap() {
        let points = vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 0.0), (3.0, 2.0), (4.0, 3.0)];
        let linear = pieces(&points, |value| value.is_finite());
        assert_eq!(linear.iter().map(Vec::len).collect::<Vec<_>>(), [1, 3]);
        let log = pieces(&points, |value| value.is_finite() && value > 0.0);
        assert_eq!(log.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2]);
        for points in [Vec::new(), vec![(0.0, f64::NAN)], vec![(5.0, 5.0)], points] {
            for is_log in [false, true] {
                lines(points.clone(), is_log).draw().unwrap();
            }
        }
    }

    #[test]
    fn thinning_keeps_the_spikes() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|x| (f64::from(x), 1.0)).collect();
        points[54_321].1 = 900.0;
        points[77_777].1 = 0.1;
        let pieces = pieces(&points, f64::is_finite);
        assert!(pieces[0].len() <= POINTS_MAX, "{}", pieces[0].len());
        assert!(pieces[0].contains(&(54_321.0, 900.0)) && pieces[0].contains(&(77_777.0, 0.1)));
        assert!(pieces[0].is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn quantiles_end_at_the_largest_value() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        for value in 1..=1000 {
            histogram.record(value * 1000).unwrap();
        }
        let points = quantiles(&histogram, 1000.0);
        assert!(points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
        let (last, value) = points[points.len() - 1];
        assert!((0.999..1.0).contains(&last) && (999.0..=1001.0).contains(&value));
        let median = points.iter().find(|(quantile, _)| *quantile >= 0.5).unwrap();
        assert!((495.0..=510.0).contains(&median.1), "{median:?}");
        Percentiles {
            title: "t".into(),
            y_label: "ms".into(),
            series: vec![
                ("a".into(), points),
                ("none".into(), quantiles(&Histogram::new(3).unwrap(), 1.0)),
            ],
        }
        .draw()
        .unwrap();
    }
}
