//! Datatype names of the Open Inference Protocol, and the single version of models.

use infer_engine::DType;

/// Models have one version: the configured file. Its hash distinguishes files.
pub(super) const VERSION: &str = "1";

/// The protocol's names of the element types.
pub(super) const DATATYPES: [(DType, &str); 7] = [
    (DType::F16, "FP16"),
    (DType::BF16, "BF16"),
    (DType::F32, "FP32"),
    (DType::F64, "FP64"),
    (DType::U8, "UINT8"),
    (DType::I32, "INT32"),
    (DType::I64, "INT64"),
];

pub(super) fn datatype(dtype: DType) -> &'static str {
    DATATYPES.iter().find(|(known, _)| *known == dtype).map_or("", |(_, name)| name)
}
