//! Choice of the backend for ONNX files, made once when the program starts.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backend::{self, Backend, OnnxRuntime, Rten, RuntimeError};

/// Options of the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// Source of ONNX Runtime.
    pub onnxruntime: Onnxruntime,
}

/// Source of ONNX Runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Onnxruntime {
    /// The newest library in `search`; rten if none is usable.
    Auto {
        /// Libraries, and folders that may contain some.
        search: Vec<PathBuf>,
    },
    /// Only this library.
    Path(PathBuf),
    /// Do not use ONNX Runtime; use rten.
    Off,
}

/// The backend in use.
pub struct Runtime {
    backend: Arc<dyn Backend>,
    description: String,
}

impl Runtime {
    /// Chooses the backend, and loads ONNX Runtime if it is the choice.
    ///
    /// A process loads at most one ONNX Runtime and never unloads it. A later call with
    /// [`Onnxruntime::Auto`] uses the loaded one, whatever its path. A later call with
    /// [`Onnxruntime::Path`] fails unless the path is the same.
    ///
    /// # Errors
    ///
    /// When the library in [`Onnxruntime::Path`] cannot be used. `Auto` and `Off` never fail.
    pub fn new(options: &RuntimeOptions) -> Result<Self, RuntimeError> {
        Ok(match &options.onnxruntime {
            Onnxruntime::Path(path) => Runtime::onnxruntime(OnnxRuntime::open(path)?),
            Onnxruntime::Off => Runtime::rten("ONNX Runtime is disabled"),
            Onnxruntime::Auto { search } => match OnnxRuntime::loaded() {
                Some(loaded) => Runtime::onnxruntime(loaded),
                None => Runtime::search(search),
            },
        })
    }

    fn search(places: &[PathBuf]) -> Self {
        let mut failures = Vec::new();
        for library in backend::candidates(places) {
            match OnnxRuntime::open(&library) {
                Ok(runtime) => return Runtime::onnxruntime(runtime),
                Err(error) => {
                    tracing::warn!("{error}");
                    failures.push(error.to_string());
                }
            }
        }
        if failures.is_empty() {
            let quoted = |place: &PathBuf| format!("`{}`", Path::display(place));
            let places: Vec<_> = places.iter().map(quoted).collect();
            let places =
                if places.is_empty() { "an empty list of places".to_owned() } else { places.join(", ") };
            failures.push(format!("no libonnxruntime in {places}"));
        }
        Runtime::rten(&failures.join("; "))
    }

    fn onnxruntime(runtime: OnnxRuntime) -> Self {
        let description = runtime.describe();
        Runtime { backend: Arc::new(runtime), description }
    }

    /// The factors in the message are medians on one thread of two Zen 5 cores, for
    /// EfficientNet-Lite0 in int8 and the BiLSTM.
    fn rten(reason: &str) -> Self {
        let description = format!(
            "built-in rten ({reason}): compared with ONNX Runtime, int8 image models take about ten times as long and small \
             text models about twice as long, and f16, bf16 and f64 are not supported; install ONNX Runtime 1.{} or later",
            ort::MINOR_VERSION
        );
        Runtime { backend: Arc::new(Rten), description }
    }

    /// Name of the backend: `onnxruntime` or `rten`.
    pub fn backend(&self) -> &'static str {
        self.backend.name()
    }

    /// Version and path of the library; for rten, the reason why ONNX Runtime is not used, the
    /// consequences, and the remedy.
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
    fn disabled_onnxruntime_selects_rten() {
        let runtime = runtime(Onnxruntime::Off).unwrap();
        assert_eq!(runtime.backend(), "rten");
        assert!(runtime.describe().starts_with("built-in rten (ONNX Runtime is disabled): compared"));
    }

    #[test]
    fn unusable_explicit_library_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("libonnxruntime.so");
        let error = runtime(Onnxruntime::Path(missing.clone())).unwrap_err().to_string();
        let expected = "expected the path of a libonnxruntime shared library";
        assert_eq!(error, format!("cannot find `{}`, {expected}", missing.display()));

        std::fs::write(&missing, "no library").unwrap();
        let error = runtime(Onnxruntime::Path(missing.clone())).unwrap_err();
        assert!(matches!(error, RuntimeError::NotOnnxRuntime { .. }), "{error}");
        assert!(error.to_string().starts_with("cannot load `"), "{error}");
    }

    #[test]
    fn failed_search_selects_rten_with_reason() {
        let folder = tempfile::tempdir().unwrap();
        let search = [folder.path().to_owned()];
        let none = Runtime::search(&search);
        assert_eq!(none.backend(), "rten");
        let reason = format!("(no libonnxruntime in `{}`)", folder.path().display());
        assert!(none.describe().contains(&reason), "{}", none.describe());

        std::fs::write(folder.path().join("libonnxruntime.so.1.99.0"), "no library").unwrap();
        let broken = Runtime::search(&search);
        assert_eq!(broken.backend(), "rten");
        assert!(broken.describe().contains("` as ONNX Runtime: "), "{}", broken.describe());
    }
}
