//! Latency by percentile, one curve per row, as a self-contained SVG file.

use std::fmt::Write as _;

use crate::report::Report;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 480.0;
/// Left, top, right, and bottom edge of the plot area.
const BOX: [f64; 4] = [70.0, 60.0, 640.0, 420.0];

/// Colours that readers with colour blindness can distinguish: Okabe and Ito, "Color universal
/// design" (2008).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// Draws the plot.
pub(super) fn svg(report: &Report) -> String {
    let points = || report.rows.iter().flat_map(|row| &row.curve);
    let max = points().map(|(_, ms)| *ms).fold(1e-3, f64::max);
    let min = points().map(|(_, ms)| *ms).filter(|ms| *ms > 0.0).fold(max, f64::min);
    // Whole decades, so that grid lines fall on round values.
    let (bottom, top) = (min.log10().floor(), max.log10().ceil().max(min.log10().floor() + 1.0));
    let nines = points().map(|(percent, _)| nines(*percent)).fold(1.0, f64::max).ceil();
    let x = |percent: f64| BOX[0] + (BOX[2] - BOX[0]) * self::nines(percent) / nines;
    let y = |ms: f64| {
        BOX[3] - (BOX[3] - BOX[1]) * (ms.max(1e-9).log10().clamp(bottom, top) - bottom) / (top - bottom)
    };

    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>
"##
    );
    let name = report.model.as_ref().map_or(report.target.as_str(), |model| &model.name);
    let dummy = if report.dummy { "DUMMY: " } else { "" };
    let title = format!("{dummy}{name}: latency of {} by percentile", report.task);
    text(&mut svg, (BOX[0], 26.0), "start", 16, &title);
    text(
        &mut svg,
        (BOX[0], 44.0),
        "start",
        12,
        &format!("{}, {} cores", report.host.processor, report.host.cores),
    );
    for decade in bottom as i32..=top as i32 {
        let at = y(10f64.powi(decade));
        line(&mut svg, (BOX[0], at), (BOX[2], at));
        let label = if decade >= 0 {
            format!("{:.0} ms", 10f64.powi(decade))
        } else {
            format!("{} ms", 10f64.powi(decade))
        };
        text(&mut svg, (BOX[0] - 6.0, at + 4.0), "end", 12, &label);
    }
    for step in 0..=nines as i32 {
        let percent = 100.0 * (1.0 - 10f64.powi(-step));
        line(&mut svg, (x(percent), BOX[1]), (x(percent), BOX[3]));
        text(
            &mut svg,
            (x(percent), BOX[3] + 18.0),
            "middle",
            12,
            &format!("{percent:.*} %", (step - 2).max(0) as usize),
        );
    }
    for (index, row) in report.rows.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let dashes = ["none", "6 4", "2 3"][index / COLOURS.len() % 3];
        let path: Vec<_> =
            row.curve.iter().map(|(percent, ms)| format!("{:.1},{:.1}", x(*percent), y(*ms))).collect();
        let _ = writeln!(
            svg,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>"#,
            path.join(" ")
        );
        let at = BOX[1] + 10.0 + 18.0 * index as f64;
        let _ = writeln!(
            svg,
            r#"<line x1="660" y1="{at}" x2="684" y2="{at}" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>"#
        );
        let label = format!("{}, {} at once: {:.1}/s", row.path, row.concurrency, row.inferences_per_second);
        text(&mut svg, (690.0, at + 4.0), "start", 12, &label);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Number of nines in a percentile: 0 for 0 %, 1 for 90 %, 2 for 99 %.
fn nines(percent: f64) -> f64 {
    -(1.0 - percent / 100.0).max(1e-9).log10()
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ =
        writeln!(svg, r##"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="#dddddd"/>"##);
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, size: u32, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    let (x, y) = at;
    let _ = writeln!(
        svg,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-size="{size}">{text}</text>"#
    );
}
