//! A report as a table, as CSV, and as Markdown.

use std::fmt::Write as _;
use std::io::{self, Write};

use infer_models::dummy::WARNING;

use crate::args::BenchFormat;
use crate::report::{LanguageShare, Report, Subject};
use crate::stats::Row;

/// A column: its heading, its key in CSV, and the value of a row with its number of decimals.
struct Column {
    heading: &'static str,
    key: &'static str,
    digits: usize,
    value: fn(&Row) -> Option<f64>,
}

const COLUMNS: [Column; 15] = [
    column("INF/S", "inferences_per_second", 2, |row| Some(row.inferences_per_second)),
    column("± SD", "inferences_per_second_sd", 2, |row| Some(row.inferences_per_second_sd)),
    column("GOODPUT", "goodput_per_second", 2, |row| row.goodput_per_second),
    column("P50 MS", "p50_ms", 3, |row| Some(row.p50_ms)),
    column("P90 MS", "p90_ms", 3, |row| Some(row.p90_ms)),
    column("P99 MS", "p99_ms", 3, |row| Some(row.p99_ms)),
    column("QUEUE MS", "queue_ms", 3, |row| Some(row.queue_ms)),
    column("INST µS", "instantiate_us", 1, |row| row.instantiate_us),
    column("GUEST µS", "guest_us", 1, |row| row.guest_us),
    column("COMPUTE MS", "compute_ms", 3, |row| Some(row.compute_ms)),
    column("BATCH", "batch_mean", 2, |row| row.batch_mean),
    column("CACHED %", "cached_ratio", 1, |row| row.cached_ratio),
    column("TOKENS", "prompt_tokens", 1, |row| row.prompt_tokens),
    column("REQUESTS", "requests", 0, |row| Some(row.requests as f64)),
    column("ERRORS", "errors", 0, |row| Some(row.errors as f64)),
];

const fn column(
    heading: &'static str,
    key: &'static str,
    digits: usize,
    value: fn(&Row) -> Option<f64>,
) -> Column {
    Column { heading, key, digits, value }
}

/// Writes `report` in `format`.
///
/// # Errors
///
/// If `out` cannot be written.
pub(super) fn print(report: &Report, format: BenchFormat, out: &mut impl Write) -> io::Result<()> {
    match format {
        BenchFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, report)?;
            writeln!(out)
        }
        BenchFormat::Csv => out.write_all(csv(report).as_bytes()),
        BenchFormat::Md => out.write_all(markdown(report).as_bytes()),
        BenchFormat::Table => out.write_all(table(report).as_bytes()),
    }
}

/// The rows' cells, headings first. Columns without any value are left out.
fn cells(report: &Report) -> Vec<Vec<String>> {
    let used: Vec<_> =
        COLUMNS.iter().filter(|column| report.rows.iter().any(|row| (column.value)(row).is_some())).collect();
    let headings = ["PATH", "AT ONCE"].into_iter().chain(used.iter().map(|column| column.heading));
    let mut lines = vec![headings.map(str::to_owned).collect::<Vec<_>>()];
    for row in &report.rows {
        let mut line = vec![row.path.to_owned(), row.concurrency.to_string()];
        line.extend(used.iter().map(|column| {
            let percent = if column.key == "cached_ratio" { 100.0 } else { 1.0 };
            (column.value)(row)
                .map_or("–".to_owned(), |value| format!("{:.*}", column.digits, value * percent))
        }));
        lines.push(line);
    }
    lines
}

fn table(report: &Report) -> String {
    let lines = cells(report);
    let widths: Vec<_> = (0..lines[0].len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in head(report) {
        text.push_str(&line);
        text.push('\n');
    }
    text.push('\n');
    for line in &lines {
        for (index, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let padded = if index == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
            text.push_str(&padded);
        }
        text.push('\n');
    }
    let notes = notes(report);
    if !notes.is_empty() {
        text.push('\n');
    }
    for line in
        notes.iter().chain(&report.warnings.iter().map(|text| format!("warning: {text}")).collect::<Vec<_>>())
    {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn markdown(report: &Report) -> String {
    let mut text = String::new();
    for line in head(report) {
        let _ = writeln!(text, "{line}  ");
    }
    text.push('\n');
    for (index, line) in cells(report).iter().enumerate() {
        let _ = writeln!(text, "| {} |", line.join(" | "));
        if index == 0 {
            let _ = writeln!(text, "|---|{}", "---:|".repeat(line.len() - 1));
        }
    }
    text.push('\n');
    for line in notes(report) {
        let _ = writeln!(text, "- {line}");
    }
    for warning in &report.warnings {
        let _ = writeln!(text, "- **warning:** {warning}");
    }
    text
}

fn csv(report: &Report) -> String {
    let mut text = if report.dummy { format!("# {WARNING}\n") } else { String::new() };
    let keys =
        ["model", "task", "path", "concurrency"].into_iter().chain(COLUMNS.iter().map(|column| column.key));
    let _ = writeln!(text, "{}", keys.collect::<Vec<_>>().join(","));
    let name = report.model.as_ref().map_or("", |model| &model.name);
    for row in &report.rows {
        let _ = write!(
            text,
            "\"{}\",{},{},{}",
            name.replace('"', "\"\""),
            report.task,
            row.path,
            row.concurrency
        );
        for column in &COLUMNS {
            let value = (column.value)(row).map(|value| value.to_string()).unwrap_or_default();
            let _ = write!(text, ",{value}");
        }
        text.push('\n');
    }
    text
}

/// Header lines: the subject and the machine.
fn head(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    if report.dummy {
        lines.push(WARNING.to_owned());
    }
    let Report { host, load, task, target, .. } = report;
    let memory = host.memory_bytes.map(|bytes| format!(", {:.1} GB", bytes as f64 / 1e9)).unwrap_or_default();
    lines.push(format!(
        "{}, {} cores{memory}; {}",
        host.processor,
        host.cores,
        host.instruction_sets.join(" ")
    ));
    if let Some(subject) = &report.model {
        let Subject {
            name,
            hash,
            component,
            backend,
            quantization,
            sessions,
            threads,
            solo_threads,
            load_ms,
        } = subject;
        let component = component.as_ref().map(|name| format!("component {name}: ")).unwrap_or_default();
        let quantization = quantization.as_ref().map(|types| format!(", {types}")).unwrap_or_default();
        let mut line = format!("{component}{name} {hash:.12}{quantization}, on {backend}");
        if let (Some(sessions), Some(threads)) = (sessions, threads) {
            let _ = write!(line, ", {sessions} sessions × {threads} threads");
            if let Some(threads) = solo_threads {
                let _ = write!(line, " and one of {threads}");
            }
        }
        if let Some(load_ms) = load_ms {
            let _ = write!(line, ", loaded in {:.2} s", load_ms / 1e3);
        }
        lines.push(line);
    }
    let extent = match (load.seconds, load.requests) {
        (_, Some(requests)) => format!("{requests} requests a row"),
        (Some(seconds), None) => format!("{seconds:.1} s a row"),
        (None, None) => String::new(),
    };
    let pace = load.rate.map_or("closed loop".to_owned(), |rate| format!("open loop of {rate} requests/s"));
    let dataset = load.dataset.as_ref().map(|name| format!(", {name}")).unwrap_or_default();
    let cache = if load.prefix_cache == "on" {
        String::new()
    } else {
        format!(", prefix cache {}", load.prefix_cache)
    };
    lines.push(format!(
        "{task} on {target}, {pace}, {extent} in {} turns, seed {}{dataset}{cache}",
        load.repeats, load.seed
    ));
    lines
}

/// Lines below the table: facts that the rows do not contain.
fn notes(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    for tax in &report.sandbox {
        let cost = tax.instance_us;
        lines.push(format!(
            "at {} the sandbox keeps {:.1} % of native; an instance costs {:.0} µs: made {:.0}, called {:.0}, dropped {:.0}",
            tax.concurrency,
            tax.of_native * 100.0,
            cost.instantiate + cost.guest + cost.drop,
            cost.instantiate,
            cost.guest,
            cost.drop
        ));
    }
    let native = |row: &Row| row.path == "native";
    if report.sandbox.is_empty() && report.rows.iter().any(native) && !report.rows.iter().all(native) {
        lines.push(
            "native is the model alone, on tensors that are ready; texts and pixels are the guest's work"
                .to_owned(),
        );
    }
    lines.extend(report.prefill.iter().map(|rate| rate.line("prefill")));
    lines.extend(report.decode.iter().map(|rate| rate.line("decode ")));
    if let Some(verdict) = &report.verdict {
        lines.push(format!(
            "from a post to its verdict: {:.1} ms with a cold prefix ({:.0} tokens computed), {:.1} ms with a warm one ({:.0})",
            verdict.cold_ms, verdict.cold_tokens, verdict.warm_ms, verdict.warm_tokens
        ));
    }
    if let Some(cold) = &report.cold {
        let mut line = format!("cold: first answer after {:.2} ms", cold.first_inference_ms);
        if let (Some(compile), Some(read), Some(made)) =
            (cold.compile_ms, cold.deserialize_us, cold.instantiate_us)
        {
            let _ = write!(
                line,
                "; the guest compiled in {compile:.1} ms, read compiled in {read:.0} µs, first made in {made:.0} µs"
            );
        }
        lines.push(line);
    }
    if let Some(quality) = &report.quality {
        let figure = |name: &str, value: Option<f64>| {
            value.map(|value| format!(", {name} {value:.4}")).unwrap_or_default()
        };
        lines.push(format!(
            "right: accuracy {:.4}{}{}, calibration error {:.4}, over {} of {} labelled examples ({} positive, {} without an answer)",
            quality.accuracy,
            figure("AUROC", quality.auroc),
            figure("F1", quality.f1),
            quality.calibration_error,
            quality.examples,
            quality.of,
            quality.positives,
            quality.errors
        ));
    }
    if let Some(LanguageShare { reached, answers }) = report.language {
        let percent = 100.0 * reached as f64 / answers.max(1) as f64;
        lines.push(format!("language model: {reached} of {answers} texts ({percent:.1} %)"));
    }
    lines.push(format!("peak memory {:.0} MB, this client included", report.rss_peak_bytes as f64 / 1e6));
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::machine::Machine;
    use crate::plot;
    use crate::report::LoadFacts;
    use crate::stats::{Stages, Tally, Turn};

    fn report() -> Report {
        let mut tally = Tally::new(None);
        (1..=1000).for_each(|ms| tally.answered(Duration::from_millis(ms), &Stages::default()));
        let turn = Turn { elapsed: Duration::from_secs(2), planned: Duration::from_secs(2), answers: 1000 };
        let rows = ["native", "http"].map(|path| Row::new(path, 4, &[turn], &tally)).to_vec();
        Report {
            dummy: true,
            host: Machine {
                processor: "A <Processor>".to_owned(),
                cores: 2,
                instruction_sets: vec!["avx2".to_owned()],
                memory_bytes: Some(8_000_000_000),
            },
            model: Some(Subject {
                name: "a \"model\"".to_owned(),
                hash: "0123456789abcdef".to_owned(),
                component: None,
                backend: "portable".to_owned(),
                quantization: Some("Q4_K, F32".to_owned()),
                sessions: Some(2),
                threads: Some(1),
                solo_threads: Some(2),
                load_ms: Some(1500.0),
            }),
            task: "moderate".to_owned(),
            target: "inproc".to_owned(),
            load: LoadFacts {
                rate: None,
                seconds: Some(2.0),
                requests: None,
                repeats: 1,
                seed: 1,
                slo_ms: None,
                prefix_cache: "on".to_owned(),
                dataset: None,
            },
            rows,
            sandbox: Vec::new(),
            prefill: Vec::new(),
            decode: Vec::new(),
            verdict: None,
            cold: None,
            quality: None,
            language: Some(LanguageShare { reached: 1, answers: 8 }),
            rss_peak_bytes: 1_000_000,
            warnings: vec!["a warning".to_owned()],
        }
    }

    fn printed(format: BenchFormat) -> String {
        let mut out = Vec::new();
        print(&report(), format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_output_of_a_dummy_says_so() {
        for format in [BenchFormat::Table, BenchFormat::Csv, BenchFormat::Md] {
            assert!(printed(format).contains("DUMMY"), "{format:?}");
        }
        let json: serde_json::Value = serde_json::from_str(&printed(BenchFormat::Json)).unwrap();
        assert_eq!(json["dummy"], true);
        assert!(plot::svg(&report()).contains(">DUMMY: "));
    }

    #[test]
    fn tables_are_rectangles() {
        let csv = printed(BenchFormat::Csv);
        let columns: Vec<_> = csv.lines().skip(1).map(|line| line.split(',').count()).collect();
        assert_eq!(columns, [19; 3], "{csv}");
        assert!(csv.contains("\"a \"\"model\"\"\",moderate,native,4,500,0,,"), "{csv}");
        let table = printed(BenchFormat::Table);
        assert!(table.contains("language model: 1 of 8 texts (12.5 %)"), "{table}");
        let rows: Vec<_> = table.lines().skip_while(|line| !line.starts_with("PATH")).take(3).collect();
        assert!(rows.iter().all(|row| row.chars().count() == rows[0].chars().count()), "{table}");
        assert!(!rows[0].contains("GUEST"), "a column without values is shown: {table}");
        let markdown = printed(BenchFormat::Md);
        let bars: Vec<_> = markdown
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.matches('|').count())
            .collect();
        assert!(bars.len() == 4 && bars.iter().all(|count| *count == bars[0]), "{markdown}");
    }

    #[test]
    fn plot_is_well_formed_with_every_row() {
        let svg = plot::svg(&report());
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("A &lt;Processor&gt;") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(svg.matches('<').count(), svg.matches('>').count());
        let empty = Report { rows: Vec::new(), ..report() };
        assert!(!plot::svg(&empty).contains("NaN"));
    }
}
