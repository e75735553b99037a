//! The operator's settings for this component, typed.

use crate::Fault;
use crate::bindings::wasi::config::store;

/// All settings: the operator's own, and under `models.NAME.` what the cards of the configured
/// models say.
///
/// Read once: a call to the host costs more than looking a key up here.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Ordered by key.
    pairs: Vec<(String, String)>,
}

impl Settings {
    /// Ask the host for them.
    ///
    /// # Errors
    ///
    /// `internal` when the host cannot say.
    pub fn read() -> Result<Settings, Fault> {
        match store::get_all() {
            Ok(pairs) => Ok(Settings::from_pairs(pairs)),
            Err(error) => Err(Fault::Internal(format!("the settings cannot be read: {error:?}"))),
        }
    }

    /// Settings that do not come from a host, for tests and native use.
    pub fn from_pairs(mut pairs: Vec<(String, String)>) -> Settings {
        pairs.sort_unstable();
        Settings { pairs }
    }

    /// The value of `key` as it was written, where it was.
    pub fn text(&self, key: &str) -> Option<&str> {
        let found = self.pairs.binary_search_by(|(candidate, _)| candidate.as_str().cmp(key)).ok()?;
        Some(&self.pairs[found].1)
    }

    /// The value of `key`, or `default` where it is not set.
    ///
    /// # Errors
    ///
    /// `internal` when the value is not a `T`.
    pub fn get<T: Setting>(&self, key: &str, default: T) -> Result<T, Fault> {
        let Some(text) = self.text(key) else { return Ok(default) };
        T::parse(text).ok_or_else(|| {
            Fault::Internal(format!("setting `{key}`: expected {}, found `{text}`", T::EXPECTED))
        })
    }
}

/// A type that a setting can have.
pub trait Setting: Sized {
    /// What a value should be, for the message when it is not.
    const EXPECTED: &'static str;

    /// The value, where `text` is one.
    fn parse(text: &str) -> Option<Self>;
}

impl Setting for bool {
    const EXPECTED: &'static str = "`true` or `false`";

    fn parse(text: &str) -> Option<bool> {
        text.parse().ok()
    }
}

impl Setting for u32 {
    const EXPECTED: &'static str = "a whole number from 0 to 4294967295";

    fn parse(text: &str) -> Option<u32> {
        text.parse().ok()
    }
}

impl Setting for f32 {
    const EXPECTED: &'static str = "a finite number";

    fn parse(text: &str) -> Option<f32> {
        text.parse().ok().filter(|number: &f32| number.is_finite())
    }
}

impl Setting for f64 {
    const EXPECTED: &'static str = "a finite number";

    fn parse(text: &str) -> Option<f64> {
        text.parse().ok().filter(|number: &f64| number.is_finite())
    }
}

impl Setting for String {
    const EXPECTED: &'static str = "text";

    fn parse(text: &str) -> Option<String> {
        Some(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings::from_pairs(pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn a_key_is_found_whatever_the_order_of_the_pairs() {
        let settings = settings(&[("z", "26"), ("a", "1"), ("m", "13")]);
        assert_eq!(settings.text("m"), Some("13"));
        assert_eq!(settings.text("b"), None);
        assert_eq!(settings.get("z", 0_u32).unwrap(), 26);
    }

    #[test]
    fn a_missing_key_has_its_default() {
        assert_eq!(settings(&[]).get("threshold.hate", 0.5_f32).unwrap(), 0.5);
    }

    #[test]
    fn a_value_of_another_type_is_refused_with_key_expectation_and_value() {
        let settings = settings(&[("max_pixels", "many"), ("threshold.hate", "NaN")]);
        let message = |fault| match fault {
            Fault::Internal(message) => message,
            other => panic!("{other:?}"),
        };
        let pixels = message(settings.get("max_pixels", 1_u32).unwrap_err());
        assert_eq!(
            pixels,
            "setting `max_pixels`: expected a whole number from 0 to 4294967295, found `many`"
        );
        let hate = message(settings.get("threshold.hate", 0.5_f32).unwrap_err());
        assert_eq!(hate, "setting `threshold.hate`: expected a finite number, found `NaN`");
    }
}
