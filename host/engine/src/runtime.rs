//! Which backend runs ONNX files: decided once, when the program starts.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backend::{self, Backend, OnnxRuntime, Rten, RuntimeError};

/// What decides the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// Where ONNX Runtime comes from.
    pub onnxruntime: Onnxruntime,
}

/// Where ONNX Runtime comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Onnxruntime {
    /// The newest library in `search`, else rten.
    Auto {
        /// Libraries, and folders that may hold some.
        search: Vec<PathBuf>,
    },
    /// This library and no other.
    Path(PathBuf),
    /// Not at all: rten.
    Off,
}

/// The backend in use.
pub struct Runtime {
    backend: Arc<dyn Backend>,
    description: String,
}

impl Runtime {
    /// Choose the backend, and load ONNX Runtime where that is the choice.
    ///
    /// A process loads at most one ONNX Runtime and keeps it. A later call with
    /// [`Onnxruntime::Auto`] uses the same again, wherever it was found; one with
    /// [`Onnxruntime::Path`] does if the path is the same, and else fails.
    ///
    /// # Errors
    ///
    /// When the library that [`Onnxruntime::Path`] names cannot be used. `Auto` and `Off` always
    /// succeed.
    pub fn new(options: &RuntimeOptions) -> Result<Self, RuntimeError> {
        Ok(match &options.onnxruntime {
            Onnxruntime::Path(path) => Runtime::onnxruntime(OnnxRuntime::open(path)?),
            Onnxruntime::Off => Runtime::rten("ONNX Runtime is switched off"),
            Onnxruntime::Auto { search } => match OnnxRuntime::loaded() {
                Some(loaded) => Runtime::onnxruntime(loaded),
                None => Runtime::search(search),
            },
        })
    }

    fn search(places: &[PathBuf]) -> Self {
        let mut refused = Vec::new();
        for library in backend::candidates(places) {
            match OnnxRuntime::open(&library) {
                Ok(runtime) => return Runtime::onnxruntime(runtime),
                Err(error) => {
                    tracing::warn!("{error}");
                    refused.push(error.to_string());
                }
            }
        }
        if refused.is_empty() {
            let quoted = |place: &PathBuf| format!("`{}`", Path::display(place));
            let places: Vec<_> = places.iter().map(quoted).collect();
            let places = if places.is_empty() { "no place".to_owned() } else { places.join(", ") };
            refused.push(format!("no libonnxruntime in {places}"));
        }
        Runtime::rten(&refused.join("; "))
    }

    fn onnxruntime(runtime: OnnxRuntime) -> Self {
        let description = runtime.describe();
        Runtime { backend: Arc::new(runtime), description }
    }

    /// The figures are medians on one thread of two Zen 5 cores, EfficientNet-Lite0 in int8 and the
    /// BiLSTM.
    fn rten(reason: &str) -> Self {
        let description = format!(
            "rten, in this program ({reason}); int8 image models take about ten times as long as on ONNX Runtime, small \
             text models about twice, and f16, bf16 and f64 are not computed: install ONNX Runtime 1.{} or later for those",
            ort::MINOR_VERSION
        );
        Runtime { backend: Arc::new(Rten), description }
    }

    /// `onnxruntime` or `rten`.
    pub fn backend(&self) -> &'static str {
        self.backend.name()
    }

    /// The library's version and path; or why ONNX Runtime is not in use, what that costs, and the
    /// way out.
    pub fn describe(&self) -> String {
        self.description.clone()
    }

    pub(crate) fn implementation(&self) -> &dyn Backend {
        &*self.backend
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("description", &self.description).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(onnxruntime: Onnxruntime) -> Result<Runtime, RuntimeError> {
        Runtime::new(&RuntimeOptions { onnxruntime })
    }

    #[test]
    fn switched_off_is_rten() {
        let runtime = runtime(Onnxruntime::Off).unwrap();
        assert_eq!(runtime.backend(), "rten");
        assert!(runtime.describe().starts_with("rten, in this program (ONNX Runtime is switched off); int8"));
    }

    #[test]
    fn library_that_is_asked_for_and_unusable_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("libonnxruntime.so");
        let error = runtime(Onnxruntime::Path(missing.clone())).unwrap_err().to_string();
        let expected = "expected the path of a libonnxruntime shared library";
        assert_eq!(error, format!("cannot find `{}`, {expected}", missing.display()));

        std::fs::write(&missing, "no library").unwrap();
        let error = runtime(Onnxruntime::Path(missing.clone())).unwrap_err();
        assert!(matches!(error, RuntimeError::NotOnnxRuntime { .. }), "{error}");
        assert!(error.to_string().contains("is not an ONNX Runtime that loads: "), "{error}");
    }

    #[test]
    fn search_that_finds_nothing_usable_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let search = [folder.path().to_owned()];
        let none = Runtime::search(&search);
        assert_eq!(none.backend(), "rten");
        let reason = format!("(no libonnxruntime in `{}`)", folder.path().display());
        assert!(none.describe().contains(&reason), "{}", none.describe());

        std::fs::write(folder.path().join("libonnxruntime.so.1.99.0"), "no library").unwrap();
        let broken = Runtime::search(&search);
        assert_eq!(broken.backend(), "rten");
        assert!(broken.describe().contains("is not an ONNX Runtime that loads"), "{}", broken.describe());
    }
}
