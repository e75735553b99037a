//! Nodes and constants of an ONNX file, as in
//! <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>.

use std::io::{self, Write};

use anyhow::bail;
use infer_engine::protobuf::head;

use super::message::Message;
use crate::limits::MAX_EXPORT_BYTES;

/// Version of the operators.
const OPSET: u64 = 17;

/// Version of the format that has these operators.
const IR_VERSION: u64 = 8;

/// Element types of `TensorProto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    F32 = 1,
    U8 = 2,
    I8 = 3,
    I32 = 6,
    I64 = 7,
}

/// An attribute of a node.
pub(super) enum Attribute<'a> {
    Int(i64),
    Float(f32),
    Ints(&'a [i64]),
}

/// An axis of an input or output.
pub(super) enum Axis {
    Fixed(usize),
    Varying(&'static str),
}

/// A graph in the making.
#[derive(Default)]
pub(super) struct Graph {
    nodes: Vec<u8>,
    count: usize,
    constants: Vec<Constant>,
}

/// A `TensorProto`.
struct Constant {
    head: Vec<u8>,
    data: Vec<u8>,
}

impl Graph {
    /// Adds a node with one output, and returns the output's name.
    pub(super) fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute<'_>)],
    ) -> String {
        let output = format!("{operator}_{}", self.count);
        self.named(operator, inputs, &[&output], attributes);
        output
    }

    /// Adds a node with the given outputs.
    pub(super) fn named(
        &mut self,
        operator: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[(&str, Attribute<'_>)],
    ) {
        let node = inputs.iter().fold(Message::default(), |node, input| node.bytes(1, input));
        let node = outputs.iter().fold(node, |node, output| node.bytes(2, output)).bytes(4, operator);
        let node = attributes.iter().fold(node, |node, (name, value)| node.bytes(5, attribute(name, value)));
        self.nodes.extend(Message::default().bytes(1, node).into_bytes());
        self.count += 1;
    }

    /// Adds a constant with the little-endian bytes of its elements. A name must be new.
    pub(super) fn constant(&mut self, name: &str, element: Element, dims: &[usize], data: Vec<u8>) {
        let head = dims.iter().fold(Message::default(), |tensor, size| tensor.number(1, *size as u64));
        let head = head.number(2, element as u64).bytes(8, name).into_bytes();
        self.constants.push(Constant { head, data });
    }

    /// Adds a constant of f32.
    pub(super) fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, Element::F32, dims, data);
    }

    /// Adds a list of i64.
    pub(super) fn sizes(&mut self, name: &str, values: &[i64]) {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, Element::I64, &[values.len()], data);
    }

    /// Completes the file.
    ///
    /// # Errors
    ///
    /// If it is larger than a message may be.
    pub(super) fn finish(
        self,
        inputs: &[(&str, Element, &[Axis])],
        output: (&str, Element, &[Axis]),
    ) -> anyhow::Result<Onnx> {
        let ports = inputs.iter().fold(Message::default(), |ports, input| ports.bytes(11, port(input)));
        let ports = ports.bytes(12, port(&output)).into_bytes();
        let name = Message::default().bytes(2, "sentence_encoder").into_bytes();
        let mut pieces = vec![self.nodes, name];
        for Constant { head: start, data } in self.constants {
            let raw = head(9, data.len() as u64);
            pieces.push(head(5, (start.len() + raw.len() + data.len()) as u64));
            pieces.extend([start, raw, data]);
        }
        pieces.push(ports);
        let graph = pieces.iter().map(|piece| piece.len() as u64).sum();
        let opset = Message::default().bytes(1, "").number(2, OPSET);
        let model = Message::default().number(1, IR_VERSION).bytes(2, "infer").bytes(8, opset);
        pieces.insert(0, [model.into_bytes(), head(7, graph)].concat());
        let onnx = Onnx { pieces };
        if onnx.bytes() > MAX_EXPORT_BYTES {
            bail!("the ONNX file would be {} bytes, expected at most {MAX_EXPORT_BYTES}", onnx.bytes());
        }
        Ok(onnx)
    }
}

fn attribute(name: &str, value: &Attribute<'_>) -> Message {
    let message = Message::default().bytes(1, name);
    match value {
        Attribute::Float(value) => message.float(2, *value).number(20, 1),
        Attribute::Int(value) => message.number(3, *value as u64).number(20, 2),
        Attribute::Ints(values) => {
            values.iter().fold(message, |message, value| message.number(8, *value as u64)).number(20, 7)
        }
    }
}

/// A `ValueInfoProto`.
fn port((name, element, axes): &(&str, Element, &[Axis])) -> Message {
    let shape = axes.iter().fold(Message::default(), |shape, axis| {
        let axis = match axis {
            Axis::Fixed(size) => Message::default().number(1, *size as u64),
            Axis::Varying(name) => Message::default().bytes(2, name),
        };
        shape.bytes(1, axis)
    });
    let tensor = Message::default().number(1, *element as u64).bytes(2, shape);
    Message::default().bytes(1, name).bytes(2, Message::default().bytes(1, tensor))
}

/// An ONNX file, in pieces.
pub struct Onnx {
    pieces: Vec<Vec<u8>>,
}

impl Onnx {
    /// Size of the file in bytes.
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    /// Writes the file.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        self.pieces.iter().try_for_each(|piece| out.write_all(piece))
    }
}
