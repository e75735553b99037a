//! Conditions on a report: fixed limits, and changes relative to the report of an earlier run.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, ensure};
use infer_engine::files;
use serde_json::Value;

use crate::limits::MAX_REPORT_BYTES;

/// Metrics of a row.
const ROW: [&str; 14] = [
    "inferences_per_second",
    "inferences_per_second_sd",
    "goodput_per_second",
    "p50_ms",
    "p90_ms",
    "p99_ms",
    "queue_ms",
    "instantiate_us",
    "guest_us",
    "compute_ms",
    "batch_mean",
    "cached_ratio",
    "errors",
    "requests",
];

/// Metrics of the whole run.
const WHOLE: [&str; 14] = [
    "prefill.tokens_per_second",
    "decode.tokens_per_second",
    "verdict.cold_ms",
    "verdict.warm_ms",
    "sandbox.of_native",
    "cold.compile_ms",
    "cold.deserialize_us",
    "cold.instantiate_us",
    "cold.first_inference_ms",
    "quality.auroc",
    "quality.f1",
    "quality.accuracy",
    "quality.calibration_error",
    "rss_peak_bytes",
];

/// A condition that fails the run, such as `p99_ms>+10%` or `errors>0`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    text: String,
    metric: &'static str,
    above: bool,
    limit: Limit,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    Value(f64),
    /// A change relative to the baseline, in percent.
    Change(f64),
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = |why: &str| {
            format!(
                "expected a figure, `<` or `>`, and a number or a change in percent, such as `p99_ms>+10%`; {why}"
            )
        };
        let at = text.find(['<', '>']).ok_or_else(|| expected("`<` or `>` is missing"))?;
        let (name, limit) = (text[..at].trim(), text[at + 1..].trim());
        let metric = ROW.iter().chain(&WHOLE).find(|metric| **metric == name).ok_or_else(|| {
            expected(&format!("no figure `{name}`; expected one of {}, {}", ROW.join(", "), WHOLE.join(", ")))
        })?;
        let number = |text: &str| {
            let number = text.parse().ok().filter(|number: &f64| number.is_finite());
            number.ok_or_else(|| expected(&format!("`{text}` is not a number")))
        };
        let limit = match limit.strip_suffix('%') {
            Some(change) if !change.starts_with(['+', '-']) => {
                return Err(expected(&format!(
                    "`{change}%` has no sign: write `+{change}%` or `-{change}%`"
                )));
            }
            Some(change) => Limit::Change(number(change)?),
            None => Limit::Value(number(limit)?),
        };
        Ok(Condition { text: text.to_owned(), metric, above: text[at..].starts_with('>'), limit })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Condition {
    /// True if the condition compares with an earlier run.
    pub(super) fn needs_baseline(&self) -> bool {
        matches!(self.limit, Limit::Change(_))
    }

    /// Returns a line for each place in `report` that meets the condition.
    ///
    /// # Errors
    ///
    /// If the report, or the baseline that the condition needs, does not contain the metric.
    pub(super) fn met(&self, report: &Value, baseline: Option<&Value>) -> anyhow::Result<Vec<String>> {
        let mut met = Vec::new();
        let mut compared = 0;
        let earlier = baseline.map(|baseline| figures(baseline, self.metric)).unwrap_or_default();
        for (place, found) in figures(report, self.metric) {
            let (limit, change) = match self.limit {
                Limit::Value(limit) => (limit, String::new()),
                Limit::Change(percent) => {
                    let Some((_, before)) = earlier.iter().find(|(other, _)| *other == place) else {
                        continue;
                    };
                    let percent_off = (found / before - 1.0) * 100.0;
                    (before * (1.0 + percent / 100.0), format!(", {percent_off:+.1} % of {}", short(*before)))
                }
            };
            compared += 1;
            if if self.above { found > limit } else { found < limit } {
                met.push(format!("`{self}`: {place} is {}{change}", short(found)));
            }
        }
        ensure!(
            compared > 0,
            "`{self}` matches no figure: {}",
            if self.needs_baseline() {
                "the report and the baseline have no such figure in common; measure both with the same arguments"
            } else {
                "the report has no such figure; it belongs to another task, or needs another flag"
            }
        );
        Ok(met)
    }
}

fn short(value: f64) -> String {
    if value.abs() >= 1000.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

/// Every value of `metric`, with its place in the report.
fn figures(report: &Value, metric: &str) -> Vec<(String, f64)> {
    let rows = |key: &str| report[key].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let found: Vec<(String, Value)> = match metric.split_once('.') {
        None if metric == "rss_peak_bytes" => vec![(metric.to_owned(), report[metric].clone())],
        None => rows("rows")
            .iter()
            .map(|row| {
                let place = format!("{metric} of {} at {}", text(&row["path"]), text(&row["concurrency"]));
                (place, row[metric].clone())
            })
            .collect(),
        Some(("prefill", key)) => rows("prefill")
            .iter()
            .map(|prefill| (format!("prefill of {} tokens", text(&prefill["tokens"])), prefill[key].clone()))
            .collect(),
        Some(("decode", key)) => rows("decode")
            .iter()
            .map(|decode| (format!("decode of {} sessions", text(&decode["sessions"])), decode[key].clone()))
            .collect(),
        Some(("sandbox", key)) => rows("sandbox")
            .iter()
            .map(|row| (format!("sandbox of native at {}", text(&row["concurrency"])), row[key].clone()))
            .collect(),
        Some((part, key)) => vec![(metric.to_owned(), report[part][key].clone())],
    };
    found.into_iter().filter_map(|(place, value)| Some((place, value.as_f64()?))).collect()
}

/// Reads the report of an earlier run.
///
/// # Errors
///
/// If the file cannot be read or is not a report.
pub(super) fn read(path: &Path) -> anyhow::Result<Value> {
    let name = path.display();
    let text = files::read_to_string(path, MAX_REPORT_BYTES);
    let text = text.with_context(|| format!("cannot read the baseline `{name}`"))?;
    let report: Value = serde_json::from_str(&text)
        .with_context(|| format!("the baseline `{name}` is not a report of `infer bench -o json`"))?;
    ensure!(
        report["rows"].is_array(),
        "the baseline `{name}` has no `rows`: expected a report of `infer bench -o json`"
    );
    Ok(report)
}

/// Settings that differ from the baseline's, which make a comparison unreliable.
pub(super) fn differences(report: &Value, baseline: &Value) -> Vec<String> {
    let compared = [
        ("the processor", "/host/processor"),
        ("the number of cores", "/host/cores"),
        ("the model", "/model/hash"),
        ("the backend", "/model/backend"),
        ("the task", "/task"),
        ("the seed", "/load/seed"),
        ("the rate", "/load/rate"),
        ("the prefix cache", "/load/prefix_cache"),
        ("the dataset", "/load/dataset"),
    ];
    let differs = |pointer: &str| report.pointer(pointer) != baseline.pointer(pointer);
    let value = |report: &Value, pointer: &str| report.pointer(pointer).unwrap_or(&Value::Null).to_string();
    let differing = compared.iter().filter(|(_, pointer)| differs(pointer));
    differing
        .map(|(what, pointer)| {
            let (now, then) = (value(report, pointer), value(baseline, pointer));
            format!("{what} is {now}, but {then} in the baseline; the runs may not be comparable")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(p99: f64, prefill: f64) -> Value {
        json!({
            "rows": [
                { "path": "native", "concurrency": 1, "p99_ms": 10.0, "errors": 0, "cached_ratio": null },
                { "path": "sandbox", "concurrency": 1, "p99_ms": p99, "errors": 2, "cached_ratio": null },
            ],
            "prefill": [{ "tokens": 128, "tokens_per_second": prefill }],
            "decode": [
                { "sessions": 1, "tokens_per_second": 20.0 },
                { "sessions": 8, "tokens_per_second": prefill },
            ],
            "rss_peak_bytes": 5000,
        })
    }

    #[test]
    fn conditions_are_met_where_figures_pass_them() {
        let (now, before) = (report(12.0, 90.0), report(10.0, 100.0));
        let cases: [(&str, &[&str]); 9] = [
            ("p99_ms>+10%", &["`p99_ms>+10%`: p99_ms of sandbox at 1 is 12.000, +20.0 % of 10.000"]),
            ("p99_ms>+25%", &[]),
            ("p99_ms < -5%", &[]),
            ("errors>0", &["`errors>0`: errors of sandbox at 1 is 2.000"]),
            ("errors>2", &[]),
            (
                "prefill.tokens_per_second<-5%",
                &["`prefill.tokens_per_second<-5%`: prefill of 128 tokens is 90.000, -10.0 % of 100.000"],
            ),
            (
                "decode.tokens_per_second<-5%",
                &["`decode.tokens_per_second<-5%`: decode of 8 sessions is 90.000, -10.0 % of 100.000"],
            ),
            ("rss_peak_bytes>4000", &["`rss_peak_bytes>4000`: rss_peak_bytes is 5000"]),
            ("rss_peak_bytes>+0%", &[]),
        ];
        for (condition, expected) in cases {
            let condition: Condition = condition.parse().unwrap();
            assert_eq!(condition.met(&now, Some(&before)).unwrap(), expected, "{condition}");
        }
    }

    #[test]
    fn conditions_without_figures_are_errors() {
        let now = report(12.0, 90.0);
        for (condition, baseline) in [
            ("cached_ratio<0.5", None),
            ("verdict.warm_ms<1", None),
            ("p99_ms>+10%", Some(json!({ "rows": [] }))),
        ] {
            let condition: Condition = condition.parse().unwrap();
            let error = condition.met(&now, baseline.as_ref()).unwrap_err();
            assert!(error.to_string().contains("matches no figure"), "{error}");
        }
    }

    #[test]
    fn invalid_conditions_are_rejected() {
        let cases = [
            ("p99_ms", "`<` or `>` is missing"),
            ("p98_ms>1", "no figure `p98_ms`"),
            ("p99_ms>10%", "write `+10%` or `-10%`"),
            ("p99_ms>fast", "`fast` is not a number"),
            ("p99_ms>", "`` is not a number"),
            ("p99_ms>+nan%", "is not a number"),
        ];
        for (text, words) in cases {
            let error = text.parse::<Condition>().unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn other_machines_and_models_are_reported() {
        let (a, b) = (json!({ "model": { "hash": "a" } }), json!({ "model": { "hash": "b" } }));
        assert_eq!(differences(&a, &a), Vec::<String>::new());
        assert!(differences(&a, &b)[0].starts_with("the model is \"a\", but \"b\""));
    }
}
