//! Checks numbers against the ranges of their keys.

use std::ops::{RangeBounds as _, RangeInclusive};
use std::time::Duration;

use toml::Spanned;

use super::Checker;
use crate::key::{Entry, Kind, RangeText};
use crate::place::Place;

/// A whole number that may be absent.
pub(super) type Number<'a> = Entry<'a, Option<Spanned<u64>>>;

/// `subject` opens each message, such as ``model `text`: ``; it is empty for `[server]`.
impl<P: Fn(usize) -> Place> Checker<'_, P> {
    /// Returns the number, or the default of its key.
    pub(super) fn number(&mut self, subject: &str, entry: Number) -> u64 {
        let default = entry.key.number();
        self.number_or(subject, entry, default)
    }

    /// Returns the number, or `default`, which depends on another key.
    pub(super) fn number_or(&mut self, subject: &str, entry: Number, default: u64) -> u64 {
        self.optional(subject, entry).unwrap_or(default)
    }

    /// Returns the number, or `None` if it is absent.
    pub(super) fn optional(&mut self, subject: &str, entry: Number) -> Option<u64> {
        let range = entry.key.range().unwrap_or(0..=u64::MAX);
        self.within(subject, entry, range)
    }

    /// Returns the number, or `None` if it is absent. A number outside of `range` is a mistake.
    pub(super) fn within(
        &mut self,
        subject: &str,
        Entry { key, value }: Number,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let found = value.as_ref()?;
        let number = *found.get_ref();
        if !range.contains(&number) {
            let message =
                format!("{subject}`{}` is {number}, expected {} to {}", key.name, range.start(), range.end());
            self.mistake(found.span().start, message);
        }
        Some(number)
    }

    /// Returns the duration, or the default of its key.
    pub(super) fn duration(&mut self, subject: &str, entry: Number) -> Duration {
        Duration::from_millis(self.number(subject, entry))
    }

    /// Returns the duration, or `default`, which depends on another key.
    pub(super) fn duration_or(&mut self, subject: &str, entry: Number, default: Duration) -> Duration {
        self.optional(subject, entry).map_or(default, Duration::from_millis)
    }

    /// Returns the real number, or `None` if it is absent. A number out of range is a mistake.
    pub(super) fn real(
        &mut self,
        subject: &str,
        Entry { key, value }: Entry<'_, Option<Spanned<f64>>>,
    ) -> Option<f64> {
        let found = value.as_ref()?;
        let number = *found.get_ref();
        if let Kind::Real(min, max) = key.kind
            && !(min, max).contains(&number)
        {
            let message = format!("{subject}`{}` is {number}, expected {}", key.name, RangeText(&key.kind));
            self.mistake(found.span().start, message);
        }
        Some(number)
    }
}
