//! The matrices that a model needs.

use infer_kernels::{Pool, QuantizedMatrix, WeightType};

use crate::language::gguf::{Gguf, GgufError};

/// A matrix that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MatrixSpec {
    /// The tensor's name in the GGUF file.
    pub(crate) name: String,
    pub(crate) ty: WeightType,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl MatrixSpec {
    /// The name of the bias that goes with it, where the file has one.
    pub(crate) fn bias(&self) -> String {
        self.name.replace(".weight", ".bias")
    }
}

/// The tensor `wanted`, packed in memory. Its bytes in the file are not kept resident a second
/// time.
///
/// # Errors
///
/// When there is no such tensor, or memory is lacking.
pub(crate) fn pack(gguf: &Gguf, pool: &Pool, wanted: &MatrixSpec) -> Result<QuantizedMatrix, GgufError> {
    let MatrixSpec { name, ty, rows, columns } = wanted;
    let tensor = gguf.require_tensor(name, &[*rows, *columns])?;
    let packed = QuantizedMatrix::pack(pool, *ty, tensor.data, *rows, *columns);
    let packed = packed.map_err(|error| GgufError::tensor(name, format!("cannot be packed: {error}")))?;
    gguf.forget(name);
    Ok(packed)
}
