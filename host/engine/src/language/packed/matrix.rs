//! The matrices that a model needs.

use infer_kernels::{Pool, QuantizedMatrix, WeightType};

use crate::language::gguf::{Gguf, GgufError};

/// A matrix that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MatrixSpec {
    /// Name of the tensor in the GGUF file.
    pub(crate) name: String,
    pub(crate) ty: WeightType,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl MatrixSpec {
    /// Name of its bias, which the file may not have.
    pub(crate) fn bias(&self) -> String {
        self.name.replace(".weight", ".bias")
    }
}

/// Packs the tensor `spec` in memory. Its bytes in the file are not kept resident a second time.
///
/// # Errors
///
/// If there is no such tensor, or not enough memory.
pub(crate) fn pack(gguf: &Gguf, pool: &Pool, spec: &MatrixSpec) -> Result<QuantizedMatrix, GgufError> {
    let MatrixSpec { name, ty, rows, columns } = spec;
    let tensor = gguf.tensor(name).ok_or_else(|| GgufError::tensor(name, "is missing"))?;
    let packed = QuantizedMatrix::pack(pool, *ty, tensor.data, *rows, *columns);
    let packed = packed.map_err(|error| GgufError::tensor(name, format!("cannot be packed: {error}")))?;
    gguf.forget(name);
    Ok(packed)
}
