//! Language models: their files, tokenizers and chat templates.

pub(crate) mod gguf;
#[cfg(any(test, fuzzing))]
pub(crate) mod hostile;
pub(crate) mod template;
pub(crate) mod tokenizer;
