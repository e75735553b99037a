//! The weights and guests inside the program, and the cards of models that can be pulled.

use std::path::PathBuf;

/// The files of one model's folder: each one's name and bytes.
pub type Files = &'static [(&'static str, &'static [u8])];

macro_rules! files {
    ($model:literal: $($file:literal),+) => {
        ($model, &[$(($file, include_bytes!(concat!("../../../weights/", $model, "/", $file)))),+])
    };
}

const WEIGHTS: [(&str, Files); 7] = [
    files!("efficientnet-lite0-int8": "card.toml", "model.onnx", "labels.txt"),
    files!("nsfwjs-mobilenet_v2-int8": "card.toml", "model.onnx", "labels.txt"),
    files!("phi3": "card.toml"),
    files!("qwen2.5-0.5b": "card.toml"),
    files!("qwen2.5-1.5b": "card.toml"),
    files!("smollm2": "card.toml"),
    files!("toxic-bilstm": "card.toml", "model.onnx", "labels.txt", "vocab.json"),
];

/// The model that `infer dummy phi3` writes, card and all, into the cache folder.
pub const PHI3_DUMMY: &str = "phi3-dummy";

/// What to do where [`cache_folder`] finds none.
pub const NO_CACHE: &str = "there is no cache folder: set INFER_CACHE to one";

macro_rules! guest {
    ($guest:literal) => {
        ($guest, include_bytes!(concat!(env!("INFER_GUESTS"), "/", $guest, ".wasm")))
    };
}

const GUESTS: [(&str, &[u8]); 3] = [guest!("classify"), guest!("moderate"), guest!("predict")];

/// The models that `builtin:NAME` names: carried, pulled, or written by this program.
pub fn weights_names() -> impl Iterator<Item = &'static str> {
    WEIGHTS.iter().map(|(name, _)| *name).chain([PHI3_DUMMY])
}

/// The files of a model that are carried: all of them, or the card of one that is pulled; none of
/// one that is written.
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

/// Where ONNX Runtime's shared library is looked for: the cache folder, then where systems keep
/// libraries.
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
