//! What the program carries: a configuration, the weights that ship, the guests, so that one file serves.

use std::path::PathBuf;

/// The configuration that is used when there is no infer.toml.
pub const CONFIG: &str = include_str!("default.toml");

/// The files of one model's folder: each one's name and bytes.
pub type Files = &'static [(&'static str, &'static [u8])];

macro_rules! files {
    ($model:literal: $($file:literal),+) => {
        ($model, &[$(($file, include_bytes!(concat!("../../weights/", $model, "/", $file)))),+])
    };
}

const WEIGHTS: [(&str, Files); 3] = [
    files!("efficientnet-lite0-int8": "card.toml", "model.onnx", "labels.txt"),
    files!("nsfwjs-mobilenet_v2-int8": "card.toml", "model.onnx", "labels.txt"),
    files!("toxic-bilstm": "card.toml", "model.onnx", "labels.txt", "vocab.json"),
];

macro_rules! guest {
    ($guest:literal) => {
        ($guest, include_bytes!(concat!(env!("INFER_GUESTS"), "/", $guest, ".wasm")))
    };
}

const GUESTS: [(&str, &[u8]); 3] = [guest!("classify"), guest!("moderate"), guest!("predict")];

/// The models whose weights are carried.
pub fn weights_names() -> impl Iterator<Item = &'static str> {
    WEIGHTS.iter().map(|(name, _)| *name)
}

/// The files of a carried model.
pub fn weights(name: &str) -> Option<Files> {
    WEIGHTS.iter().find(|(known, _)| *known == name).map(|(_, files)| *files)
}

/// The guests that are carried.
pub fn guest_names() -> impl Iterator<Item = &'static str> {
    GUESTS.iter().map(|(name, _)| *name)
}

/// The bytes of a carried guest.
pub fn guest(name: &str) -> Option<&'static [u8]> {
    GUESTS.iter().find(|(known, _)| *known == name).map(|(_, bytes)| *bytes)
}

/// Where ONNX Runtime's shared library is looked for: the cache folder, then where systems keep libraries.
pub fn onnxruntime_folders() -> Vec<PathBuf> {
    let cached = cache_folder().map(|folder| folder.join("onnxruntime"));
    let system = ["/usr/local/lib", "/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];
    cached.into_iter().chain(system.map(PathBuf::from)).collect()
}

/// INFER_CACHE, else `infer` in XDG_CACHE_HOME, else in ~/.cache.
pub fn cache_folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("INFER_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("infer")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".cache/infer")))
}
