//! placeholder
use super::gguf::Gguf;
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TokenizerError(String);
pub(crate) struct Tokenizer { n: usize }
/// A turn.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Message { /// who
    pub role: String, /// what
    pub content: String }
impl Tokenizer {
    pub(crate) fn from_gguf(g: &Gguf) -> Result<Self, TokenizerError> { let t = g.tensor("token_embd.weight").map_err(|e| TokenizerError(e.to_string()))?.ok_or(TokenizerError("no".into()))?; Ok(Self { n: t.shape[0] }) }
    pub(crate) fn vocabulary_size(&self) -> usize { self.n }
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> { Ok(text.bytes().map(u32::from).collect()) }
    pub(crate) fn bos(&self) -> Option<u32> { Some(1) }
    pub(crate) fn is_end(&self, token: u32) -> bool { token == 2 }
    pub(crate) fn detokenizer(&self) -> Detokenizer<'_> { Detokenizer(self) }
    pub(crate) fn encode_chat(&self, messages: &[Message], _: bool) -> Result<Vec<u32>, TokenizerError> { Ok(messages.iter().flat_map(|m| m.content.bytes().map(u32::from)).collect()) }
}
pub(crate) struct Detokenizer<'t>(&'t Tokenizer);
impl Detokenizer<'_> {
    pub(crate) fn push(&mut self, token: u32) -> Option<String> { let _ = self.0; Some(format!("<{token}>")) }
    pub(crate) fn finish(&mut self) -> String { String::new() }
}
