//! Typed access to the operator's settings for this component.

use crate::Fault;
use crate::bindings::wasi::config::store;

/// All settings: the operator's own, the models' cards under `models.NAME.`, and the request's
/// under `request.`.
///
/// They are read once: a call to the host costs more than a lookup here.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Ordered by key.
    pairs: Vec<(String, String)>,
}

impl Settings {
    /// Reads the settings from the host.
    ///
    /// # Errors
    ///
    /// `internal` when the host reports an error.
    pub fn read() -> Result<Settings, Fault> {
        match store::get_all() {
            Ok(pairs) => Ok(Settings::from_pairs(pairs)),
            Err(error) => Err(Fault::Internal(format!("cannot read the settings: {error:?}"))),
        }
    }

    /// Settings without a host, for tests and native use.
    pub fn from_pairs(mut pairs: Vec<(String, String)>) -> Settings {
        pairs.sort_unstable();
        Settings { pairs }
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().map(|(key, _)| key.as_str())
    }

    /// The value of `key` as written, if it is set.
    pub fn text(&self, key: &str) -> Option<&str> {
        let found = self.pairs.binary_search_by(|(candidate, _)| candidate.as_str().cmp(key)).ok()?;
        Some(&self.pairs[found].1)
    }

    /// The value of `key`, or `default` if it is not set.
    ///
    /// # Errors
    ///
    /// `internal` when the value does not parse as `T`.
    pub fn get<T: Setting>(&self, key: &str, default: T) -> Result<T, Fault> {
        let Some(text) = self.text(key) else { return Ok(default) };
        T::parse(text).ok_or_else(|| {
            Fault::Internal(format!("setting `{key}`: expected {}, found `{text}`", T::EXPECTED))
        })
    }
}

/// A type of settings.
pub trait Setting: Sized {
    /// Description of valid values, for error messages.
    const EXPECTED: &'static str;

    /// Parses a value.
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
    fn key_is_found_in_any_order() {
        let settings = settings(&[("z", "26"), ("a", "1"), ("m", "13")]);
        assert_eq!(settings.text("m"), Some("13"));
        assert_eq!(settings.text("b"), None);
        assert_eq!(settings.get("z", 0_u32).unwrap(), 26);
    }

    #[test]
    fn missing_key_has_default() {
        assert_eq!(settings(&[]).get("threshold.hate", 0.5_f32).unwrap(), 0.5);
    }

    #[test]
    fn invalid_value_names_key_and_expectation() {
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
