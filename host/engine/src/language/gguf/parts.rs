//! Models in several files, `NAME-00001-of-00003.gguf` and so on, as llama.cpp's `gguf-split`
//! writes them. The first part has the metadata; each part has its own tensors, and the keys
//! `split.no` (from 0), `split.count` and `split.tensors.count` (of all parts).

use super::error::{GgufError, quoted};
use crate::limits::{MAX_GGUF_PARTS, MAX_GGUF_TENSORS};

pub(super) const NUMBER: &str = "split.no";
pub(super) const COUNT: &str = "split.count";
pub(super) const TENSORS: &str = "split.tensors.count";

/// Names of the parts that follow the file `name`, in order; none unless `name` is that of a first
/// part.
///
/// # Errors
///
/// If the name states more parts than the limit.
pub(crate) fn following(name: &str) -> Result<Vec<String>, GgufError> {
    let stem = name.strip_suffix(".gguf").and_then(|stem| stem.split_at_checked(stem.len().checked_sub(5)?));
    let Some((stem, digits)) = stem else { return Ok(Vec::new()) };
    let Some(stem) = stem.strip_suffix("-00001-of-") else { return Ok(Vec::new()) };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Vec::new());
    }
    let count = digits.parse().unwrap_or(usize::MAX);
    if count > MAX_GGUF_PARTS {
        let message = format!("is the first of {count} parts by its name; expected at most {MAX_GGUF_PARTS}");
        return Err(GgufError::File(message));
    }
    Ok((2..=count).map(|number| format!("{stem}-{number:05}-of-{count:05}.gguf")).collect())
}

/// The keys of a part that relate it to the others.
#[derive(Clone, Copy)]
pub(super) struct Split<'g> {
    pub(super) number: Option<u32>,
    pub(super) count: Option<u32>,
    pub(super) tensors: Option<u32>,
    pub(super) architecture: Option<&'g str>,
}

impl Split<'_> {
    /// Checks that this is part `index`, from 0, of a model in `files` files. A model in one file
    /// may lack the keys.
    pub(super) fn check(&self, index: usize, files: usize) -> Result<(), GgufError> {
        let stated = self.count.unwrap_or(1);
        if files == 1 && stated <= 1 {
            return Ok(());
        }
        if files == 1 {
            let number = self.number.unwrap_or(0).saturating_add(1);
            let message = format!(
                "is {stated}: the file is part {number} of {stated}; expected the first part, with its name \
                 `NAME-00001-of-{stated:05}.gguf` and the other parts beside it"
            );
            return Err(GgufError::key(COUNT, message));
        }
        for (key, value, expected) in [(COUNT, self.count, files), (NUMBER, self.number, index)] {
            if value.map(|value| value as usize) != Some(expected) {
                let message =
                    format!("is {}; expected {expected} by the file's name and place", shown(value));
                return Err(GgufError::key(key, message));
            }
        }
        Ok(())
    }

    /// Checks that this part is of the model that begins with `first`.
    pub(super) fn check_same(&self, first: &Self) -> Result<(), GgufError> {
        if let (Some(own), Some(other)) = (self.architecture, first.architecture)
            && own != other
        {
            let message = format!("is {}; the first part has {}", quoted(own), quoted(other));
            return Err(GgufError::key("general.architecture", message));
        }
        if self.tensors != first.tensors
            || self.tensors.is_none_or(|stated| u64::from(stated) > MAX_GGUF_TENSORS)
        {
            let message = format!(
                "is {}, and {} in the first part; expected one number of at most {MAX_GGUF_TENSORS}: use parts \
                 of one model",
                shown(self.tensors),
                shown(first.tensors)
            );
            return Err(GgufError::key(TENSORS, message));
        }
        Ok(())
    }

    /// Checks the number of tensors of all parts together.
    pub(super) fn check_tensors(&self, found: usize) -> Result<(), GgufError> {
        match self.tensors {
            Some(stated) if stated as usize != found => {
                let message =
                    format!("is {stated}; the parts have {found} tensors: use all parts of one model");
                Err(GgufError::key(TENSORS, message))
            }
            _ => Ok(()),
        }
    }
}

fn shown(value: Option<u32>) -> String {
    value.map_or("missing".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_first_parts_have_following_names() {
        let names = |name| following(name).unwrap();
        assert_eq!(names("m-00001-of-00003.gguf"), ["m-00002-of-00003.gguf", "m-00003-of-00003.gguf"]);
        assert_eq!(names("-00001-of-00002.gguf"), ["-00002-of-00002.gguf"]);
        for name in [
            "m.gguf",
            "",
            ".gguf",
            "é.gguf",
            "m-00002-of-00003.gguf",
            "m-00001-of-00001.gguf",
            "m-00001-of-00000.gguf",
            "m-00001-of-3.gguf",
            "m-00001-of-+0003.gguf",
            "m-00001-of-00003.bin",
        ] {
            assert_eq!(names(name), [""; 0], "{name}");
        }
        let error = following("m-00001-of-00129.gguf").unwrap_err().to_string();
        assert_eq!(error, "the GGUF file is the first of 129 parts by its name; expected at most 128");
    }
}
