//! Draws one resource: what was, the limit, and the fan of what may come. An SVG that takes its colours from the page's
//! style sheet, so that it is readable in light and in dark.

use forewarn_schemas::forecast::TimeToExhaustion;
use forewarn_schemas::units::{humane_duration, humane_number};
use forewarn_schemas::{Direction, Forecast, ForecastState, Sample, Timestamp};
use plotters::prelude::*;

const WIDTH: u32 = 720;
const HEIGHT: u32 = 220;
/// Points drawn of the history at most; more are thinned to the extremes of each bucket.
const POINTS_MAX: usize = 240;

/// Each drawn with a colour of its own that is replaced by a class of the style sheet afterwards.
const LINE: RGBColor = RGBColor(1, 2, 3);
const LIMIT: RGBColor = RGBColor(1, 2, 4);
const FAN: RGBColor = RGBColor(1, 2, 5);
const COURSE: RGBColor = RGBColor(1, 2, 6);
const TEXT: RGBColor = RGBColor(1, 2, 7);
const GRID: RGBColor = RGBColor(1, 2, 8);
const CLASSES: [(&str, &str); 6] = [
    ("#010203", "c-line"),
    ("#010204", "c-limit"),
    ("#010205", "c-fan"),
    ("#010206", "c-course"),
    ("#010207", "c-text"),
    ("#010208", "c-grid"),
];

/// Draws `history` (by time), the limit and the forecast's fan as an SVG element; `None` when there is nothing to draw.
pub fn draw(forecast: &Forecast, history: &[Sample]) -> Option<String> {
    let mut points = thin(history);
    let limit = forecast.limit.filter(|l| l.is_finite());
    // In the unit of the axis, so that its ticks are round.
    let (unit, size) = axis_unit(forecast, points.iter().map(|p| p.1).chain(limit).fold(0.0, f64::max));
    points.iter_mut().for_each(|p| p.1 /= size);
    let limit = limit.map(|l| l / size);
    let (first, last) = (points.first()?, points.last()?);
    let seconds = |t: Timestamp| t.seconds_since(forecast.at);
    // What is exhausted has no course any more.
    let tte = match forecast.state {
        ForecastState::Exhausted => TimeToExhaustion::default(),
        _ => forecast.time_to_exhaustion,
    };
    let behind = seconds(first.0).min(-60.0);
    // As much future as the fan needs, but the past stays at least a third of the picture.
    let ahead = tte.p90.or(tte.p50.map(|p| p * 1.5)).or(tte.p10.map(|p| p * 2.0)).unwrap_or(-behind / 6.0);
    let ahead = ahead.clamp(30.0, -behind * 2.0 + 60.0) * 1.05;
    let highest = points.iter().map(|p| p.1).chain(limit).fold(f64::MIN, f64::max);
    let lowest = points.iter().map(|p| p.1).chain(limit).fold(f64::MAX, f64::min).min(0.0);
    let (y0, y1) = (lowest, highest + (highest - lowest).abs().max(1e-9) * 0.08);

    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(6)
            .x_label_area_size(24)
            .y_label_area_size(92)
            .build_cartesian_2d(behind..ahead, y0..y1)
            .ok()?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(("sans-serif", 12).into_font().color(&TEXT))
            .x_labels(5)
            .y_labels(5)
            .x_label_formatter(&|s| around_now(*s))
            .y_label_formatter(&|v| format!("{}{unit}", humane_number(*v)))
            .draw()
            .ok()?;
        if let Some(limit) = limit {
            let now = (seconds(last.0), last.1);
            if let Some(fan) = fan(now, limit, tte.p10, tte.p90, ahead, forecast.direction, (y0, y1)) {
                chart.draw_series([Polygon::new(fan, FAN)]).ok()?;
            }
            if let Some(p50) = tte.p50 {
                chart.draw_series(LineSeries::new([now, (p50, limit)], COURSE.stroke_width(2))).ok()?;
            }
            chart.draw_series(LineSeries::new([(behind, limit), (ahead, limit)], LIMIT.stroke_width(2))).ok()?;
        }
        let past = points.iter().map(|p| (seconds(p.0), p.1));
        chart.draw_series(LineSeries::new(past, LINE.stroke_width(2))).ok()?;
        chart.draw_series(LineSeries::new([(0.0, y0), (0.0, y1)], GRID)).ok()?;
        root.present().ok()?;
    }
    Some(restyle(&svg, &describe(forecast)))
}

/// The area between the earliest and the latest course; a missing latest one stays level to the picture's edge.
fn fan(
    now: (f64, f64),
    limit: f64,
    p10: Option<f64>,
    p90: Option<f64>,
    ahead: f64,
    direction: Direction,
    (y0, y1): (f64, f64),
) -> Option<Vec<(f64, f64)>> {
    let p10 = p10?.max(now.0 + 1.0);
    let beyond = match direction {
        Direction::Up => y1,
        Direction::Down => y0,
    };
    let mut area = vec![now, (p10.min(ahead), limit)];
    match p90 {
        Some(p90) if p90 <= ahead => area.extend([(p90.max(p10), limit)]),
        _ => area.extend([(ahead, limit), (ahead, now.1 + (limit - now.1) * 0.15)]),
    }
    area.iter().all(|(x, y)| x.is_finite() && y.is_finite() && beyond.is_finite()).then_some(area)
}

fn axis_unit(forecast: &Forecast, highest: f64) -> (&'static str, f64) {
    if forecast.unit != "bytes" {
        return ("", 1.0);
    }
    [(" TiB", 1u64 << 40), (" GiB", 1 << 30), (" MiB", 1 << 20), (" KiB", 1 << 10)]
        .into_iter()
        .map(|(unit, size)| (unit, size as f64))
        .find(|(_, size)| highest >= *size)
        .unwrap_or((" B", 1.0))
}

fn around_now(seconds: f64) -> String {
    match seconds.round() as i64 {
        0 => "now".into(),
        s if s < 0 => format!("-{}", humane_duration(-s as f64)),
        s => format!("+{}", humane_duration(s as f64)),
    }
}

/// Keeps the first, last, lowest and highest of each of [`POINTS_MAX`]/2 buckets, in order; missing values are left out.
fn thin(history: &[Sample]) -> Vec<(Timestamp, f64)> {
    let sound: Vec<(Timestamp, f64)> =
        history.iter().filter(|s| s.value.is_finite()).map(|s| (s.ts, s.value)).collect();
    if sound.len() <= POINTS_MAX {
        return sound;
    }
    let size = sound.len().div_ceil(POINTS_MAX / 2);
    let mut out = Vec::with_capacity(POINTS_MAX + 2);
    for bucket in sound.chunks(size) {
        let low = bucket.iter().min_by(|a, b| a.1.total_cmp(&b.1)).expect("chunks are not empty");
        let high = bucket.iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("chunks are not empty");
        let (a, b) = if low.0 <= high.0 { (low, high) } else { (high, low) };
        out.push(*a);
        out.push(*b);
    }
    out.push(sound[sound.len() - 1]);
    out
}

fn describe(forecast: &Forecast) -> String {
    format!("Chart of {}: {}", forecast.key, forecast.sentence)
}

/// Swaps each colour for its class, makes the picture as wide as its place, and names it for screen readers.
fn restyle(svg: &str, label: &str) -> String {
    let mut out = svg.to_owned();
    for (colour, class) in CLASSES {
        out = out.replace(&format!("fill=\"{colour}\""), &format!("class=\"{class}-f\""));
        out = out.replace(&format!("stroke=\"{colour}\""), &format!("class=\"{class}-s\""));
    }
    let label = label.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let head = format!("<svg width=\"{WIDTH}\" height=\"{HEIGHT}\"");
    out.replacen(&head, &format!("<svg role=\"img\" aria-label=\"{label}\" class=\"chart\""), 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::tests::rising;

    fn ramp(n: i64, at: Timestamp) -> Vec<Sample> {
        (0..n)
            .map(|i| Sample { ts: Timestamp::from_millis(at.as_millis() - (n - i) * 1000), value: i as f64 })
            .collect()
    }

    #[test]
    fn has_history_limit_and_fan_in_the_colours_of_the_page() {
        let f = rising("a@host", "processes", "");
        let svg = draw(&f, &ramp(1000, f.at)).unwrap();
        for class in ["c-line-s", "c-limit-s", "c-fan-f", "c-course-s", "c-text-f"] {
            assert!(svg.contains(class), "{class}");
        }
        assert!(!svg.contains("#0102"), "a colour was left");
        assert!(svg.contains("role=\"img\""));
    }

    #[test]
    fn odd_input_is_drawn_or_left_out_but_never_panics() {
        let mut f = rising("a", "b", "");
        assert_eq!(draw(&f, &[]), None);
        let nan = Sample { ts: f.at, value: f64::NAN };
        assert_eq!(draw(&f, &[nan]), None);
        let huge = Sample { ts: f.at, value: 1e300 };
        for limit in [None, Some(0.0), Some(f64::NAN), Some(-1.0), Some(1e300)] {
            f.limit = limit;
            draw(&f, &[huge, nan]);
            draw(&f, &ramp(3, f.at));
        }
        f.key.object = "<script>\"&".into();
        assert!(!draw(&f, &ramp(3, f.at)).unwrap().contains("<script>"));
    }

    #[test]
    fn thinning_keeps_extremes_and_the_end() {
        let mut history = ramp(10_000, Timestamp::from_secs(0));
        history[5_000].value = 1e6;
        let thin = thin(&history);
        assert!(thin.len() <= POINTS_MAX + 2);
        assert!(thin.iter().any(|p| p.1 == 1e6));
        assert_eq!(thin.last().unwrap().1, 9_999.0);
        assert!(thin.windows(2).all(|w| w[0].0 <= w[1].0));
    }
}
