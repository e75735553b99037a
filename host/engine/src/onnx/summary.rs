//! Facts about an ONNX file, read from its bytes: the same on every backend.

use std::collections::{BTreeMap, BTreeSet};

use super::external::{Kind, Tensor};
use super::protobuf::{Field, Value, fields};
use crate::card::Axis;
use crate::dtype::DType;
use crate::limits::MAX_MESSAGE_DEPTH;
use crate::text::{QUOTE_BYTES, excerpt};

/// Tensors, operators and files of an ONNX model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnnxSummary {
    /// Inputs in the order of the file.
    pub inputs: Vec<OnnxPort>,
    /// Outputs in the order of the file.
    pub outputs: Vec<OnnxPort>,
    /// Names of the operators, without their domains.
    pub operators: BTreeSet<String>,
    /// Files with the data of tensors, beside the model.
    pub data_files: BTreeSet<String>,
    /// Number of stored values by the type's number in ONNX.
    stored: BTreeMap<u64, u64>,
    /// Names of stored matrices of 8 bits, of which a value needs all 8.
    full_range: BTreeSet<Vec<u8>>,
    /// Names of tables: tensors from which rows are taken.
    tables: BTreeSet<Vec<u8>>,
}

/// An input or output, as the file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnnxPort {
    /// Name in the file.
    pub name: String,
    /// Type of the elements; `None` for one that no tensor has here.
    pub dtype: Option<DType>,
    /// Axes; `None` if the file does not declare them.
    pub shape: Option<Vec<Axis>>,
}

/// Precision of a model's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32 or f64.
    Full,
    /// f16 or bf16.
    Half,
    /// Integers of at most 8 bits.
    Quantized,
}

/// Operators that compute a scale from the values of a whole batch.
const DYNAMIC: [&str; 5] = [
    "DynamicQuantizeLinear",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat",
    "QAttention",
];

/// Types of `TensorProto`.
const FLOAT: u64 = 1;
const UINT8: u64 = 2;
const INT8: u64 = 3;
const FLOAT16: u64 = 10;
const DOUBLE: u64 = 11;
const BFLOAT16: u64 = 16;

impl OnnxSummary {
    /// Reads the model in `bytes`.
    ///
    /// # Errors
    ///
    /// A message about the part that is malformed.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut summary = OnnxSummary::default();
        summary.walk(Kind::Model, bytes, 0)?;
        let mut graph = None;
        for field in fields(bytes) {
            if let Field { number: 7, value: Value::Bytes(found), .. } = field.map_err(malformed)? {
                graph = Some(found);
            }
        }
        let graph = graph.ok_or_else(|| malformed("it has no graph"))?;
        let mut stored = BTreeSet::new();
        for field in fields(graph) {
            match field.map_err(malformed)? {
                Field { number: 5, value: Value::Bytes(tensor), .. } => {
                    stored.insert(Tensor::read(tensor).map_err(malformed)?.name);
                }
                Field { number: 11, value: Value::Bytes(info), .. } => summary.inputs.push(port(info)?),
                Field { number: 12, value: Value::Bytes(info), .. } => summary.outputs.push(port(info)?),
                _ => {}
            }
        }
        // Old files also list the stored tensors as inputs.
        summary.inputs.retain(|input| !stored.contains(input.name.as_bytes()));
        Ok(summary)
    }

    /// True if the answer for a row depends on the other rows of its batch: the scale of quantised
    /// values is computed from all of them.
    pub fn quantises_batches(&self) -> bool {
        DYNAMIC.iter().any(|operator| self.operators.contains(*operator))
    }

    /// True if the file multiplies activations of 8 bits with weights that need all 8 bits. Sums of
    /// two such products exceed 16 bits.
    pub(crate) fn needs_wide_sums(&self) -> bool {
        let multiplies = |name: &String| {
            name.starts_with('Q') || name.starts_with("DynamicQuantize") || name.contains("Integer")
        };
        self.operators.iter().any(multiplies) && self.full_range.difference(&self.tables).next().is_some()
    }

    /// Precision of most of the stored values.
    pub fn precision(&self) -> Precision {
        let count = |types: &[u64]| types.iter().filter_map(|of| self.stored.get(of)).sum::<u64>();
        let (full, half) = (count(&[FLOAT, DOUBLE]), count(&[FLOAT16, BFLOAT16]));
        // Integers of 8 bits and less; those of 32 and 64 bits are sizes and indices.
        let small = count(&[UINT8, INT8, 21, 22, 25, 26]);
        match full.max(half).max(small) {
            most if most == full => Precision::Full,
            most if most == half => Precision::Half,
            _ => Precision::Quantized,
        }
    }

    fn walk(&mut self, kind: Kind, bytes: &[u8], depth: usize) -> Result<(), String> {
        if depth > MAX_MESSAGE_DEPTH {
            return Err(malformed("messages are nested more than 100 deep"));
        }
        if kind == Kind::Tensor {
            let tensor = Tensor::read(bytes).map_err(malformed)?;
            let stored = self.stored.entry(tensor.data_type).or_default();
            *stored = stored.saturating_add(tensor.elements.unwrap_or(0));
            if tensor.axes >= 2 && needs_8_bits(&tensor) {
                self.full_range.insert(tensor.name.to_owned());
            }
            let location = tensor.entries.iter().find(|(key, _)| *key == "location");
            if let Some((_, location)) = location.filter(|_| tensor.is_external) {
                self.data_files.insert((*location).to_owned());
            }
            return Ok(());
        }
        let mut first_input = None;
        for field in fields(bytes) {
            let Field { number, value: Value::Bytes(content), .. } = field.map_err(malformed)? else {
                continue;
            };
            if kind == Kind::Node && number == 1 {
                first_input.get_or_insert(content);
            } else if kind == Kind::Node && number == 4 {
                if content == b"Gather" {
                    self.tables.extend(first_input.map(<[u8]>::to_owned));
                }
                self.operators.insert(excerpt(&String::from_utf8_lossy(content), QUOTE_BYTES).into_owned());
            } else if let Some((child, _)) = kind.child(number) {
                self.walk(child, content, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// True if a value of an 8-bit tensor is outside of the 7 bits around its zero; also if the values
/// are not stored as bytes.
fn needs_8_bits(tensor: &Tensor<'_>) -> bool {
    let offset = match tensor.data_type {
        INT8 => 64,
        UINT8 => 0_u8.wrapping_sub(64),
        _ => return false,
    };
    tensor.raw.is_none_or(|raw| raw.iter().any(|byte| byte.wrapping_add(offset) > 128))
}

fn malformed(reason: &str) -> String {
    format!("the file is not an ONNX model: {reason}")
}

/// Last message in field `number` of the message in `bytes`.
fn message(bytes: &[u8], number: u32) -> Result<Option<&[u8]>, String> {
    let mut last = None;
    for field in fields(bytes) {
        let field = field.map_err(malformed)?;
        if let (true, Value::Bytes(content)) = (field.number == number, field.value) {
            last = Some(content);
        }
    }
    Ok(last)
}

/// Reads a `ValueInfoProto`.
fn port(bytes: &[u8]) -> Result<OnnxPort, String> {
    let name = message(bytes, 1)?.unwrap_or_default();
    let name = std::str::from_utf8(name).map_err(|_| malformed("the name of a tensor is not UTF-8"))?;
    let mut port = OnnxPort { name: name.to_owned(), dtype: None, shape: None };
    let Some(tensor) = message(bytes, 2)?.map_or(Ok(None), |of| message(of, 1))? else { return Ok(port) };
    for field in fields(tensor) {
        match field.map_err(malformed)? {
            Field { number: 1, value: Value::Varint(of), .. } => port.dtype = dtype(of),
            Field { number: 2, value: Value::Bytes(shape), .. } => {
                let axes = fields(shape).map(|field| match field.map_err(malformed)?.value {
                    Value::Bytes(axis) => size(axis),
                    _ => Err(malformed("an axis is a number, expected a message")),
                });
                port.shape = Some(axes.collect::<Result<_, _>>()?);
            }
            _ => {}
        }
    }
    Ok(port)
}

/// Reads a `TensorShapeProto.Dimension`.
fn size(bytes: &[u8]) -> Result<Axis, String> {
    let mut axis = Axis::varying("?");
    for field in fields(bytes) {
        match field.map_err(malformed)? {
            Field { number: 1, value: Value::Varint(size), .. } => {
                if let Some(size) = i64::try_from(size).ok().and_then(|size| usize::try_from(size).ok()) {
                    axis = Axis::Fixed(size);
                }
            }
            Field { number: 2, value: Value::Bytes(name), .. } => {
                axis = Axis::varying(String::from_utf8_lossy(name));
            }
            _ => {}
        }
    }
    Ok(axis)
}

fn dtype(number: u64) -> Option<DType> {
    Some(match number {
        FLOAT => DType::F32,
        UINT8 => DType::U8,
        6 => DType::I32,
        7 => DType::I64,
        FLOAT16 => DType::F16,
        DOUBLE => DType::F64,
        BFLOAT16 => DType::BF16,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn summary(name: &str) -> OnnxSummary {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/text-models");
        OnnxSummary::read(&std::fs::read(folder.join(name)).unwrap()).unwrap()
    }

    #[test]
    fn ports_have_names_types_and_axes() {
        let summary = summary("distilbert/onnx/model.onnx");
        let names: Vec<_> = summary.inputs.iter().map(|input| input.name.as_str()).collect();
        assert_eq!(names, ["input_ids", "attention_mask"]);
        assert!(summary.inputs.iter().all(|input| input.dtype == Some(DType::I64)));
        let [logits] = &summary.outputs[..] else { panic!("{:?}", summary.outputs) };
        assert_eq!((logits.name.as_str(), logits.dtype), ("logits", Some(DType::F32)));
        assert_eq!(logits.shape.as_ref().unwrap().len(), 2);
        assert!(summary.data_files.is_empty());
    }

    #[test]
    fn precision_and_dynamic_scales_are_found() {
        for (file, precision, dynamic) in [
            ("model", Precision::Full, false),
            ("model_fp16", Precision::Half, false),
            ("model_quantized", Precision::Quantized, true),
        ] {
            let summary = summary(&format!("roberta/onnx/{file}.onnx"));
            assert_eq!((summary.precision(), summary.quantises_batches()), (precision, dynamic), "{file}");
        }
    }

    #[test]
    fn weights_of_8_bits_need_wide_sums() {
        for (file, expected) in [
            ("distilbert/onnx/model.onnx", false),
            ("distilbert/onnx/model_quantized.onnx", false),
            ("roberta/onnx/model_quantized.onnx", true),
        ] {
            assert_eq!(summary(file).needs_wide_sums(), expected, "{file}");
        }
    }

    #[test]
    fn other_files_are_not_models() {
        for bytes in [&b""[..], b"{}", b"\x3a\x05\x01", &[0x3a; 64]] {
            let error = OnnxSummary::read(bytes).unwrap_err();
            assert!(error.starts_with("the file is not an ONNX model"), "{error}");
        }
    }
}
