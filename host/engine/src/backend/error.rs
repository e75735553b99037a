//! An ONNX Runtime library that cannot be used.

use std::path::PathBuf;

/// An ONNX Runtime that was asked for and cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The file cannot be found.
    #[error("cannot find `{}`, expected the path of a libonnxruntime shared library", path.display())]
    Missing {
        /// The library.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is something else.
    #[error("`{}` is not an ONNX Runtime that loads: {message}", path.display())]
    NotOnnxRuntime {
        /// The library.
        path: PathBuf,
        /// What the loader said.
        message: String,
    },
    /// The library's interface is older than this program needs.
    #[error("`{}` is ONNX Runtime {found}, expected 1.{} or later", path.display(), ort::MINOR_VERSION)]
    TooOld {
        /// The library.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// A process can load one.
    #[error(
        "cannot load `{}`: this process already runs `{}`, and a process can hold one ONNX Runtime; restart it",
        path.display(),
        loaded.display()
    )]
    Second {
        /// The library.
        path: PathBuf,
        /// The one that is loaded.
        loaded: PathBuf,
    },
}
