//! Tensors of a file: their entries, and the location of their data.

use std::ops::Range;

use infer_kernels::{WeightType, dequantize_row};

use super::error::{GgufError, quoted};
use super::header::TensorInfo;

pub(super) struct Entry {
    pub(super) name: String,
    pub(super) ty: WeightType,
    pub(super) shape: Vec<usize>,
    /// Index of its file.
    pub(super) part: usize,
    /// Byte range within the file.
    pub(super) range: Range<usize>,
}

/// A tensor of a file.
#[derive(Clone, Debug)]
pub(crate) struct GgufTensor<'g> {
    /// Its name in the file.
    pub(crate) name: &'g str,
    /// The type of its elements.
    pub(crate) ty: WeightType,
    /// Its dimensions, rows first: `[rows, columns]`, or `[n]`.
    pub(crate) shape: Vec<usize>,
    /// Its rows, one after the other, each of `ty.row_bytes(columns)` bytes.
    pub(crate) data: &'g [u8],
}

impl GgufTensor<'_> {
    /// The values of a tensor of shape `[len]`.
    ///
    /// # Errors
    ///
    /// If it has another shape.
    pub(crate) fn vector(&self, len: usize) -> Result<Vec<f32>, GgufError> {
        if self.shape != [len] {
            let message = format!("has shape {:?}, expected [{len}]", self.shape);
            return Err(GgufError::tensor(self.name, message));
        }
        let mut values = vec![0.0; len];
        dequantize_row(self.ty, self.data, &mut values);
        Ok(values)
    }
}

/// Byte range of a tensor's data, in a file of `file_bytes` whose data begins at `start`.
pub(super) fn data_range(
    info: &TensorInfo,
    start: usize,
    alignment: usize,
    file_bytes: usize,
) -> Result<Range<usize>, GgufError> {
    let &TensorInfo { ref name, ty, ref shape, offset } = info;
    let size = shape.split_last().and_then(|(columns, rows)| {
        let rows = rows.iter().try_fold(1_usize, |product, rows| product.checked_mul(*rows))?;
        ty.row_bytes(*columns)?.checked_mul(rows).filter(|size| *size > 0)
    });
    let size = size.ok_or_else(|| {
        let message = format!(
            "has shape {shape:?}; expected rows of whole {ty} blocks ({} elements), not empty, of less than \
             2^64 bytes",
            ty.block_elements()
        );
        GgufError::tensor(name, message)
    })?;
    if !offset.is_multiple_of(alignment as u64) {
        let message = format!("lies at offset {offset}; expected a multiple of the alignment, {alignment}");
        return Err(GgufError::tensor(name, message));
    }
    let begin = usize::try_from(offset).ok().and_then(|offset| start.checked_add(offset));
    let range = begin.and_then(|begin| Some(begin..begin.checked_add(size)?));
    range.filter(|range| range.end <= file_bytes).ok_or_else(|| {
        let message = format!(
            "takes {size} bytes from offset {offset} of the data, which begins at byte {start}; \
             the file ends at {file_bytes}: download it again"
        );
        GgufError::tensor(name, message)
    })
}

pub(super) fn reject_overlap(tensors: &[Entry]) -> Result<(), GgufError> {
    let mut ordered: Vec<&Entry> = tensors.iter().collect();
    ordered.sort_by_key(|entry| entry.range.start);
    for pair in ordered.windows(2) {
        if pair[1].range.start < pair[0].range.end {
            let message =
                format!("overlaps tensor {}; expected separate bytes for each tensor", quoted(&pair[0].name));
            return Err(GgufError::tensor(&pair[1].name, message));
        }
    }
    Ok(())
}
