//! Language models: their files, tokenizers and chat templates.

pub(crate) mod gguf;
pub(crate) mod template;
pub(crate) mod tokenizer;
