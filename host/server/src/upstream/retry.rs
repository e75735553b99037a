//! Retries: the budget of an upstream, and the pause before each.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::http::HeaderValue;

use crate::limits::{MAX_RETRY_PAUSE, MAX_RETRY_TOKENS};

/// Pause before the first retry; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Token bucket: each request adds a share of a token, and each retry takes a whole one. An
/// upstream that fails all requests thus gets few more of them.
pub(super) struct Budget {
    share: f64,
    /// Locked for a few instructions.
    tokens: Mutex<f64>,
}

impl Budget {
    /// A full bucket to which a request adds `percent` of a token.
    pub(super) fn new(percent: f64) -> Self {
        let full = if percent > 0.0 { f64::from(MAX_RETRY_TOKENS) } else { 0.0 };
        Budget { share: percent / 100.0, tokens: Mutex::new(full) }
    }

    /// Counts a request.
    pub(super) fn deposit(&self) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        *tokens = (*tokens + self.share).min(f64::from(MAX_RETRY_TOKENS));
    }

    /// Takes a token for a retry. Returns false if the bucket is empty.
    pub(super) fn withdraw(&self) -> bool {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        // Ten shares of a tenth are slightly less than one.
        let has_token = *tokens >= 1.0 - 1e-9;
        if has_token {
            *tokens -= 1.0;
        }
        has_token
    }
}

/// Returns the pause before retry number `retry`, counted from 0: random, so that clients do not
/// come back together, and at least the upstream's `retry_after`. `None` if it would pass
/// `deadline`.
pub(super) fn pause(retry: u32, retry_after: Option<Duration>, deadline: Instant) -> Option<Duration> {
    let longest = FIRST_PAUSE.saturating_mul(1 << retry.min(16)).min(MAX_RETRY_PAUSE);
    let pause = longest.mul_f64(0.5 + fastrand::f64() / 2.0).max(retry_after.unwrap_or_default());
    (Instant::now().checked_add(pause)? < deadline).then_some(pause)
}

/// Parses a `Retry-After`: seconds, or a date, which is compared with `now`.
pub(super) fn retry_after(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_is_a_share_of_requests() {
        let budget = Budget::new(10.0);
        assert!((0..10).all(|_| budget.withdraw()), "a burst");
        assert!(!budget.withdraw());
        (0..9).for_each(|_| budget.deposit());
        assert!(!budget.withdraw());
        budget.deposit();
        assert!(budget.withdraw() && !budget.withdraw());
        (0..1_000_000).for_each(|_| budget.deposit());
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 10);
        assert!(!Budget::new(0.0).withdraw());
    }

    #[test]
    fn pause_is_bounded_by_deadline() {
        let soon = Instant::now() + Duration::from_secs(60);
        for (retry, min, max) in [(0, 50, 100), (1, 100, 200), (3, 400, 800), (30, 1_000, 2_000)] {
            let pause = pause(retry, None, soon).unwrap().as_millis();
            assert!((min..=max).contains(&pause), "{retry}: {pause}");
        }
        assert_eq!(pause(0, Some(Duration::from_secs(5)), soon), Some(Duration::from_secs(5)));
        assert_eq!(pause(0, Some(Duration::from_secs(61)), soon), None);
        assert_eq!(pause(0, Some(Duration::MAX), soon), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let cases = [
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:48:37 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let found = retry_after(&HeaderValue::from_static(text), now);
            assert_eq!(found, expected.map(Duration::from_secs), "{text}");
        }
    }
}
