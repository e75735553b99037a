//! placeholder
use std::collections::HashMap;
use candle_core::quantized::gguf_file::{Content, Value};
use infer_kernels::WeightType;
use crate::weights::bytes::Bytes;
#[derive(Debug, thiserror::Error)]
pub(crate) enum GgufError {
    #[error("{0}")]
    Unsupported(String),
    #[error("key `{key}`: {message}")]
    Key { key: String, message: String },
    #[error("tensor `{tensor}`: {message}")]
    Tensor { tensor: String, message: String },
}
pub(crate) struct Gguf { bytes: Bytes, content: Content, types: HashMap<String, WeightType> }
pub(crate) struct GgufTensor<'g> { pub(crate) name: &'g str, pub(crate) ty: WeightType, pub(crate) shape: Vec<usize>, pub(crate) data: &'g [u8] }
impl Gguf {
    pub(crate) fn parse(bytes: Bytes) -> Result<Self, GgufError> {
        let content = Content::read(&mut std::io::Cursor::new(&bytes[..])).map_err(|e| GgufError::Unsupported(e.to_string()))?;
        let mut types = HashMap::new();
        for (n, t) in &content.tensor_infos { let ty = format!("{:?}", t.ggml_dtype); let ty = [WeightType::F32, WeightType::F16, WeightType::Q4_0, WeightType::Q4_1, WeightType::Q5_0, WeightType::Q8_0, WeightType::Q4K, WeightType::Q5K, WeightType::Q6K].into_iter().find(|k| format!("{k:?}") == ty); let Some(ty) = ty else { return Err(GgufError::Tensor { tensor: n.clone(), message: "type".into() }) }; types.insert(n.clone(), ty); }
        Ok(Gguf { bytes, content, types })
    }
    fn key(&self, key: &str) -> Option<&Value> { self.content.metadata.get(key) }
    pub(crate) fn architecture(&self) -> Result<&str, GgufError> { self.str("general.architecture")?.ok_or(GgufError::Unsupported("arch".into())) }
    pub(crate) fn u32(&self, key: &str) -> Result<Option<u32>, GgufError> { Ok(self.key(key).and_then(|v| v.to_u64().ok().or(v.to_i64().ok().map(|x| x as u64)).or(v.to_u32().ok().map(u64::from)).or(v.to_i32().ok().map(|x| x as u64))).map(|v| v as u32)) }
    pub(crate) fn f32(&self, key: &str) -> Result<Option<f32>, GgufError> { Ok(self.key(key).and_then(|v| v.to_f32().ok())) }
    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> { Ok(self.key(key).and_then(|v| v.to_bool().ok())) }
    pub(crate) fn str(&self, key: &str) -> Result<Option<&str>, GgufError> { Ok(self.key(key).and_then(|v| v.to_string().ok()).map(String::as_str)) }
    pub(crate) fn tensor(&self, name: &str) -> Result<Option<GgufTensor<'_>>, GgufError> {
        let Some((name, t)) = self.content.tensor_infos.get_key_value(name) else { return Ok(None) };
        let ty = self.types[name]; let shape = t.shape.dims().to_vec(); let n: usize = shape.iter().product();
        let from = (self.content.tensor_data_offset + t.offset) as usize;
        Ok(Some(GgufTensor { name, ty, shape, data: &self.bytes[from..from + n / ty.block_elements() * ty.block_bytes()] }))
    }
    pub(crate) fn require_tensor(&self, name: &str, shape: &[usize]) -> Result<GgufTensor<'_>, GgufError> {
        let t = self.tensor(name)?.ok_or_else(|| GgufError::Tensor { tensor: name.to_owned(), message: "missing".into() })?;
        if t.shape != shape { return Err(GgufError::Tensor { tensor: name.to_owned(), message: format!("{:?} expected {shape:?}", t.shape) }); }
        Ok(t)
    }
    pub(crate) fn forget(&self, _: &GgufTensor<'_>) {}
}
