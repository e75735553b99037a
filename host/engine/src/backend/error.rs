//! Error of loading ONNX Runtime.

use std::path::PathBuf;

/// The requested ONNX Runtime cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The file does not exist or cannot be opened.
    #[error("cannot find `{}`, expected the path of a libonnxruntime shared library", path.display())]
    Missing {
        /// Path of the library.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The file is not an ONNX Runtime library.
    #[error("cannot load `{}` as ONNX Runtime: {message}", path.display())]
    NotOnnxRuntime {
        /// Path of the library.
        path: PathBuf,
        /// Message of the loader.
        message: String,
    },
    /// The library is older than the minimum version.
    #[error("`{}` is ONNX Runtime {found}, expected 1.{} or later", path.display(), ort::MINOR_VERSION)]
    TooOld {
        /// Path of the library.
        path: PathBuf,
        /// Version of the library.
        found: String,
    },
    /// The process has already loaded another ONNX Runtime.
    #[error(
        "cannot load `{}`: this process has already loaded `{}`, and it can load only one ONNX Runtime; restart it",
        path.display(),
        loaded.display()
    )]
    Second {
        /// Path of the library.
        path: PathBuf,
        /// Path of the loaded library.
        loaded: PathBuf,
    },
}
