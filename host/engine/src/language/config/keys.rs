//! Metadata keys under a family's prefix, each within its range.

use std::ops::RangeInclusive;

use crate::language::architecture::Windows;
use crate::language::gguf::{Gguf, GgufError};

pub(super) struct Keys<'g> {
    pub(super) gguf: &'g Gguf,
    pub(super) prefix: &'static str,
}

impl Keys<'_> {
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    pub(super) fn wrong(&self, name: &str, message: impl Into<String>) -> GgufError {
        GgufError::key(&self.key(name), message)
    }

    pub(super) fn optional(
        &self,
        name: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>, GgufError> {
        let value = self.gguf.u32(&self.key(name))?;
        value.map(|value| self.within(name, value, range)).transpose()
    }

    pub(super) fn number(&self, name: &str, range: RangeInclusive<usize>) -> Result<usize, GgufError> {
        self.within(name, self.gguf.require_u32(&self.key(name))?, range)
    }

    fn within(&self, name: &str, value: u32, range: RangeInclusive<usize>) -> Result<usize, GgufError> {
        let value = value as usize;
        if !range.contains(&value) {
            return Err(
                self.wrong(name, format!("is {value}, expected {} to {}", range.start(), range.end()))
            );
        }
        Ok(value)
    }

    pub(super) fn float(&self, name: &str) -> Result<Option<f32>, GgufError> {
        self.gguf.f32(&self.key(name))
    }

    /// A factor above 0. A missing key and 0 are `None`: files state 0 for an unused factor.
    pub(super) fn factor(&self, name: &str) -> Result<Option<f32>, GgufError> {
        let value = self.float(name)?.filter(|value| *value != 0.0);
        match value {
            Some(value) if !(1e-6..=1e6).contains(&value) => {
                Err(self.wrong(name, format!("is {value}, expected 0, or 0.000001 to 1000000")))
            }
            value => Ok(value),
        }
    }

    /// The window of each layer.
    pub(super) fn windows(&self, windows: &Windows, layers: usize) -> Result<Vec<Option<usize>>, GgufError> {
        const PATTERN: &str = "attention.sliding_window_pattern";
        let size = self.optional("attention.sliding_window", 0..=1 << 30)?.or(windows.default);
        let Some(size) = size.filter(|&size| size > 0) else { return Ok(vec![None; layers]) };
        let key = self.key(PATTERN);
        let local: Vec<bool> = if self.gguf.is_array(&key) {
            let local = self.gguf.bools(&key)?.unwrap_or_default();
            if local.len() < layers {
                let message = format!("has {} values, expected one for each of {layers} layers", local.len());
                return Err(self.wrong(PATTERN, message));
            }
            local
        } else {
            let period = self.optional(PATTERN, 0..=512)?.unwrap_or(windows.period);
            (0..layers).map(|layer| period == 0 || layer % period + 1 < period).collect()
        };
        Ok(local.into_iter().take(layers).map(|local| local.then_some(size)).collect())
    }
}
