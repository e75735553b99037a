//! Exact confidence bounds of a proportion (Clopper and Pearson 1934).

use crate::limits::MAX_FRACTION_TERMS;

/// Coefficients of Lanczos' approximation with g = 7, good for 15 digits.
const LANCZOS: [f64; 9] = [
    0.999_999_999_999_809_9,
    676.520_368_121_885_1,
    -1_259.139_216_722_402_8,
    771.323_428_777_653_1,
    -176.615_029_162_140_6,
    12.507_343_278_686_905,
    -0.138_571_095_265_720_12,
    9.984_369_578_019_572e-6,
    1.505_632_735_149_311_6e-7,
];

/// Returns the upper bound of a proportion of which `errors` were found in `of` draws: the true one
/// exceeds it with a probability of at most `1 - confidence`. It is 1 if all draws are errors.
pub(crate) fn upper_bound(errors: usize, of: usize, confidence: f64) -> f64 {
    if errors >= of {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    // Each step gives a bit; a proportion near 0 has up to 1,074 of them, of which 60 after the
    // first are enough.
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if tail(errors, of, middle) > 1.0 - confidence { low = middle } else { high = middle }
    }
    high
}

/// Returns the probability of at most `errors` in `of` draws, each with probability `share`.
pub(crate) fn tail(errors: usize, of: usize, share: f64) -> f64 {
    if errors >= of {
        return 1.0;
    }
    incomplete_beta((of - errors) as f64, errors as f64 + 1.0, 1.0 - share)
}

/// Returns the minimum number of draws of which the upper bound without any error is at most
/// `share`.
pub(crate) fn needed(share: f64, confidence: f64) -> usize {
    let count = ((1.0 - confidence).ln() / (1.0 - share).ln()).floor().max(1.0) as usize;
    // Rounding may be off by one.
    (count.saturating_sub(1).max(1)..)
        .find(|&count| tail(0, count, share) <= 1.0 - confidence)
        .unwrap_or(count)
}

/// The regularised incomplete beta function, by its continued fraction (Lentz' method).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return if x <= 0.0 { 0.0 } else { 1.0 };
    }
    // The fraction converges quickly on this side only.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let front = (a * x.ln() + b * (-x).ln_1p() + ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b)).exp() / a;
    let away = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let (mut upper, mut lower) = (1.0, 1.0 / away(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = lower;
    for term in 1..MAX_FRACTION_TERMS {
        let m = term as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut factor = 1.0;
        for part in [even, odd] {
            lower = 1.0 / away(1.0 + part * lower);
            upper = away(1.0 + part / upper);
            factor = lower * upper;
            fraction *= factor;
        }
        if (factor - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

/// The logarithm of the gamma function, for arguments from 1.
fn ln_gamma(x: f64) -> f64 {
    let x = x - 1.0;
    let base = x + 7.5;
    let terms = LANCZOS[1..].iter().zip(1..).map(|(part, index)| part / (x + f64::from(index)));
    let sum = LANCZOS[0] + terms.sum::<f64>();
    0.5 * std::f64::consts::TAU.ln() + (x + 0.5) * base.ln() - base + sum.ln()
}
