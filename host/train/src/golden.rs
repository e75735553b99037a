//! Comparison with scikit-learn and SciPy: tests/scripts/training.py writes golden.json.

use serde_json::Value;

use crate::features::Features;
use crate::logistic::{Problem, fit};
use crate::metrics::{self, Scored};
use crate::{binomial, calibration};

fn golden(part: &str) -> Vec<Value> {
    let golden: Value = serde_json::from_str(include_str!("golden.json")).unwrap();
    let cases = golden[part].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn truths(case: &Value) -> Vec<bool> {
    case["truths"].as_array().unwrap().iter().map(|truth| truth.as_bool().unwrap()).collect()
}

fn scored(case: &Value, scores: &str) -> Vec<Scored> {
    let scores = numbers(&case[scores]);
    scores.into_iter().zip(truths(case)).map(|(score, truth)| Scored { score, truth }).collect()
}

#[track_caller]
fn close(found: f64, expected: &Value, tolerance: f64) {
    let expected = expected.as_f64().unwrap();
    let size = expected.abs().max(1.0);
    assert!((found - expected).abs() <= tolerance * size, "found {found}, expected {expected}");
}

#[test]
fn figures_match_scikit_learn() {
    for case in golden("figures") {
        let scored = scored(&case, "scores");
        close(metrics::auroc(&scored).unwrap(), &case["auroc"], 1e-12);
        close(metrics::average_precision(&scored).unwrap(), &case["average_precision"], 1e-12);
        close(metrics::calibration_error(&scored).unwrap(), &case["calibration_error"], 1e-12);
        close(metrics::best_f1(&scored).unwrap().f1, &case["best_f1"], 1e-12);
        close(metrics::kappa(&scored, 0.5).unwrap(), &case["kappa"], 1e-12);
    }
}

#[test]
fn calibration_matches_general_minimiser() {
    for case in golden("calibrations") {
        let fitted = calibration::fit(&scored(&case, "logits")).unwrap();
        close(fitted.temperature, &case["temperature"], 1e-6);
        close(fitted.shift, &case["shift"], 1e-6);
    }
}

#[test]
fn regression_matches_scikit_learn() {
    for case in golden("regressions") {
        let rows: Vec<f32> =
            case["rows"].as_array().unwrap().iter().flat_map(numbers).map(|value| value as f32).collect();
        let truths = truths(&case);
        let features = Features::new(rows, 6).unwrap();
        let positives = truths.iter().filter(|truth| **truth).count() as f64;
        let weight = |truth: bool| {
            let of_kind = if truth { positives } else { truths.len() as f64 - positives };
            if case["balanced"] == true { truths.len() as f64 / (2.0 * of_kind) } else { 1.0 }
        };
        let problem = Problem {
            features: &features,
            truths: &truths,
            weights: &truths.iter().map(|truth| weight(*truth)).collect::<Vec<_>>(),
            examples: &(0..truths.len()).collect::<Vec<_>>(),
            c: case["c"].as_f64().unwrap(),
            tolerance: 1e-10,
        };
        let fitted = fit(&problem, None);
        close(fitted.bias, &case["bias"], 1e-6);
        for (index, weight) in fitted.weights.iter().enumerate() {
            close(*weight, &case["weights"][index], 1e-6);
        }
        let again = fit(&problem, Some(&fitted));
        close(again.bias, &case["bias"], 1e-6);
    }
}

#[test]
fn bounds_match_scipy() {
    let count = |case: &Value, name: &str| case[name].as_u64().unwrap() as usize;
    let share = |case: &Value, name: &str| case[name].as_f64().unwrap();
    for case in golden("bounds") {
        let bound =
            binomial::upper_bound(count(&case, "errors"), count(&case, "of"), share(&case, "confidence"));
        close(bound, &case["upper"], 1e-10);
    }
    for case in golden("tails") {
        let tail = binomial::tail(count(&case, "errors"), count(&case, "of"), share(&case, "share"));
        let expected = share(&case, "tail");
        assert!((tail / expected - 1.0).abs() < 1e-8, "found {tail}, expected {expected}");
    }
    for case in golden("needed") {
        assert_eq!(
            binomial::needed(share(&case, "share"), share(&case, "confidence")),
            count(&case, "needed")
        );
    }
}
