//! Hand-written ONNX models in the encoding of onnx.proto.

use std::fmt::Write as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

fn number(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Encodes field `key` with a number.
pub(crate) fn is(key: u64, value: u64) -> Vec<u8> {
    [number(key << 3), number(value)].concat()
}

/// Encodes field `key` with bytes, text or a message.
pub(crate) fn of(key: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [number((key << 3) | 2), number(value.len() as u64), value.to_vec()].concat()
}

/// Encodes a node without attributes.
pub(crate) fn node(op: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let inputs: Vec<_> = inputs.iter().flat_map(|input| of(1, input)).collect();
    of(1, [inputs, of(2, output), of(4, op)].concat())
}

/// Encodes an input (11) or output (12) of f32.
pub(crate) fn port(field: u64, name: &str, shape: &[&str]) -> Vec<u8> {
    let axis = |axis: &&str| match axis.parse() {
        Ok(size) => of(1, is(1, size)),
        Err(_) => of(1, of(2, axis)),
    };
    let axes: Vec<_> = shape.iter().flat_map(axis).collect();
    of(field, [of(1, name), of(2, of(1, [is(1, 1), of(2, axes)].concat()))].concat())
}

/// Encodes a model with these fields in its graph.
pub(crate) fn model(fields: &[Vec<u8>]) -> Vec<u8> {
    let graph = [of(2, "g"), fields.concat()].concat();
    [is(1, 8), of(7, graph), of(8, [of(1, ""), is(2, 17)].concat())].concat()
}

/// y = x W of (N, 4), where the tensor W has these fields.
pub(crate) fn product(weights: &[u8]) -> Vec<u8> {
    let fields = [
        node("MatMul", &["x", "W"], "y"),
        of(5, weights),
        port(11, "x", &["N", "4"]),
        port(12, "y", &["N", "4"]),
    ];
    model(&fields)
}

/// The 4 × 4 tensor `W` with its data at `location`.
pub(crate) fn external(location: &str) -> Vec<u8> {
    let entry = |key: &str, value: &str| of(13, [of(1, key), of(2, value)].concat());
    let entries = [entry("location", location), entry("offset", "0"), entry("length", "64")].concat();
    [is(1, 4), is(1, 4), is(2, 1), of(8, "W"), entries, is(14, 1)].concat()
}

/// k times the 4 × 4 identity.
pub(crate) fn diagonal(k: f32) -> Vec<u8> {
    (0..16).flat_map(|index| if index % 5 == 0 { k } else { 0.0 }.to_le_bytes()).collect()
}

/// Writes a card and its files, (name, role, bytes), to `folder`. `tensors` is the rest of the
/// card.
pub(crate) fn write(folder: &Path, head: &str, files: &[(&str, &str, &[u8])], tensors: &str) {
    let mut card = format!(
        "name = \"m\"\ntask = \"text-classification\"\nformat = \"onnx\"\ndescription = \"\"\nlicense = \"MIT\"\nsource = \"\"\n{head}\n"
    );
    for (path, role, bytes) in files {
        std::fs::write(folder.join(path), bytes).unwrap();
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let length = bytes.len();
        let file = format!(
            "[[files]]\npath = \"{path}\"\nrole = \"{role}\"\nbytes = {length}\nsha256 = \"{digest}\"\n"
        );
        write!(card, "{file}").unwrap();
    }
    std::fs::write(folder.join("card.toml"), card + tensors).unwrap();
}

/// The tensors `x` and `y` of f32 with these shapes.
pub(crate) fn tensors(x: &str, y: &str) -> String {
    let one = |kind: &str, name: &str, shape: &str| {
        format!("[[{kind}]]\nname = \"{name}\"\ndtype = \"f32\"\nshape = {shape}\n")
    };
    one("inputs", "x", x) + &one("outputs", "y", y)
}
