//! The models and guests that the program carries, and the cards of models that can be pulled.

use std::path::PathBuf;

/// Files of a model's folder, by name.
pub type Files = &'static [(&'static str, &'static [u8])];

macro_rules! files {
    ($model:literal: $($file:literal),+) => {
        ($model, &[$(($file, include_bytes!(concat!("../../../weights/", $model, "/", $file)))),+])
    };
}

const WEIGHTS: [(&str, Files); 14] = [
    files!("efficientnet-lite0-int8": "card.toml", "model.onnx", "labels.txt"),
    files!("gemma-3-270m": "card.toml"),
    files!("image-safety-s-int8": "card.toml", "model.onnx", "labels.txt"),
    files!("minilm": "card.toml", "tokenizer.json"),
    files!("moderation-encoder": "card.toml", "model.onnx", "tokenizer.json", "heads.toml"),
    files!("moderation-encoder-large": "card.toml", "tokenizer.json", "heads.toml"),
    files!("nsfwjs-mobilenet_v2-int8": "card.toml", "model.onnx", "labels.txt"),
    files!("phi3": "card.toml"),
    files!("ppocr-det": "card.toml"),
    files!("ppocr-rec": "card.toml", "labels.txt"),
    files!("qwen2.5-0.5b": "card.toml"),
    files!("qwen2.5-1.5b": "card.toml"),
    files!("smollm2": "card.toml"),
    files!("toxic-bilstm": "card.toml", "model.onnx", "labels.txt", "tokenizer.json"),
];

macro_rules! preset {
    ($model:literal) => {
        ($model, include_str!(concat!("../../../weights/presets/", $model, ".toml")))
    };
}

/// Cards of the models whose hash the first pull pins.
pub(crate) const PRESETS: [(&str, &str); 6] = [
    preset!("granite-guardian-3.3"),
    preset!("llama-guard-3-1b"),
    preset!("llama-guard-3-8b"),
    preset!("qwen3guard-0.6b"),
    preset!("qwen3guard-4b"),
    preset!("shieldgemma-2b"),
];

/// The model that `infer dummy phi3` writes into the cache folder, together with its card.
pub const PHI3_DUMMY: &str = "phi3-dummy";

/// Error message for a missing [`cache_folder`], with the remedy.
pub const NO_CACHE: &str = "no cache folder; set INFER_CACHE to a folder";

macro_rules! guest {
    ($guest:literal) => {
        ($guest, include_bytes!(concat!(env!("INFER_GUESTS"), "/", $guest, ".wasm")))
    };
}

const GUESTS: [(&str, &[u8]); 3] = [guest!("classify"), guest!("moderate"), guest!("predict")];

/// Names of the models that `builtin:NAME` accepts: carried, pulled, or written by this program.
pub fn weights_names() -> impl Iterator<Item = &'static str> {
    WEIGHTS.iter().map(|(name, _)| *name).chain(PRESETS.iter().map(|(name, _)| *name)).chain([PHI3_DUMMY])
}

/// Returns the carried files of a model: all of them, only the card of a model that is pulled, or
/// `None` for a preset and for a model that is written.
pub fn weights(name: &str) -> Option<Files> {
    WEIGHTS.iter().find(|(known, _)| *known == name).map(|(_, files)| *files)
}

/// Names of the carried guests.
pub fn guest_names() -> impl Iterator<Item = &'static str> {
    GUESTS.iter().map(|(name, _)| *name)
}

/// Returns the bytes of a carried guest.
pub fn guest(name: &str) -> Option<&'static [u8]> {
    GUESTS.iter().find(|(known, _)| *known == name).map(|(_, bytes)| *bytes)
}

/// Folders that are searched for ONNX Runtime's shared library: the cache folder, then the system's
/// library folders.
pub fn onnxruntime_folders() -> Vec<PathBuf> {
    let cached = cache_folder().map(|folder| folder.join("onnxruntime"));
    let system = ["/usr/local/lib", "/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];
    cached.into_iter().chain(system.map(PathBuf::from)).collect()
}

/// Returns INFER_CACHE, else `infer` in XDG_CACHE_HOME, else in ~/.cache.
pub fn cache_folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("INFER_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("infer")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".cache/infer")))
}
