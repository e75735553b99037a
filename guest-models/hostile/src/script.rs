//! Interprets bytes as calls of wasi:nn, settings and the log, on the handles that exist at that
//! point.

use guest_sdk::Fault;
use guest_sdk::bindings::infer::guest::log::{self, Level};
use guest_sdk::bindings::wasi::config::store;
use guest_sdk::bindings::wasi::nn::errors::Error;
use guest_sdk::bindings::wasi::nn::graph::{self, ExecutionTarget, Graph, GraphEncoding};
use guest_sdk::bindings::wasi::nn::inference::GraphExecutionContext;
use guest_sdk::nn::{Tensor, TensorType};

const TYPES: [TensorType; 7] = [
    TensorType::Fp16,
    TensorType::Fp32,
    TensorType::Fp64,
    TensorType::Bf16,
    TensorType::U8,
    TensorType::I32,
    TensorType::I64,
];

/// Names of models, inputs and settings: valid and invalid.
const NAMES: [&str; 8] = ["rows", "a", "b", "ids", "", "../rows", "models.rows.task", "\u{0}\u{1b}[31m"];

/// Axes with small, huge and zero products.
const AXES: [u32; 8] = [0, 1, 2, 3, 4, 255, 1 << 31, u32::MAX];

/// Handles for the calls.
#[derive(Default)]
struct Hands {
    tensors: Vec<Tensor>,
    graphs: Vec<Graph>,
    contexts: Vec<GraphExecutionContext>,
    errors: Vec<Error>,
}

/// The remaining bytes.
struct Script<'s>(std::slice::Iter<'s, u8>);

impl Script<'_> {
    fn byte(&mut self) -> Option<usize> {
        self.0.next().map(|&byte| usize::from(byte))
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        self.byte().map(|byte| choices[byte % choices.len()])
    }
}

/// Runs the calls of `bytes`, and returns their number.
#[expect(clippy::unnecessary_wraps, reason = "an attack's type")]
pub(crate) fn run(bytes: &[u8]) -> Result<String, Fault> {
    let (mut script, mut hands, mut calls) = (Script(bytes.iter()), Hands::default(), 0);
    while step(&mut script, &mut hands).is_some() {
        calls += 1;
    }
    Ok(format!("{calls} calls"))
}

/// Makes one call; returns `None` at the end of the bytes.
fn step(script: &mut Script<'_>, hands: &mut Hands) -> Option<()> {
    let Hands { tensors, graphs, contexts, errors } = hands;
    match script.byte()? % 12 {
        0 => {
            let rank = script.byte()? % 5;
            let axes = (0..rank).map(|_| script.of(&AXES)).collect::<Option<Vec<_>>>()?;
            let ty = script.of(&TYPES)?;
            // Often as many bytes as the shape requires.
            let size = axes.iter().map(|&axis| axis as usize).fold(4_usize, usize::saturating_mul);
            let length = match script.byte()? {
                byte if byte < 192 => size.min(1 << 16),
                byte => byte - 192,
            };
            tensors.push(Tensor::new(&axes, ty, &vec![script.byte()? as u8; length]));
        }
        1 => keep(graph::load_by_name(script.of(&NAMES)?), graphs, errors),
        2 => {
            let builders = vec![vec![0; script.byte()?]; script.byte()? % 4];
            keep(graph::load(&builders, GraphEncoding::Onnx, ExecutionTarget::Cpu), graphs, errors);
        }
        3 => {
            if let Some(graph) = pick(script.byte()?, graphs) {
                keep(graph.init_execution_context(), contexts, errors);
            }
        }
        4 => {
            let named =
                (0..script.byte()? % 5).map_while(|_| Some((script.of(&NAMES)?.to_owned(), tensors.pop()?)));
            let inputs = named.collect();
            if let Some(context) = pick(script.byte()?, contexts) {
                match context.compute(inputs) {
                    Ok(outputs) => tensors.extend(outputs.into_iter().map(|(_, tensor)| tensor)),
                    Err(error) => errors.push(error),
                }
            }
        }
        5 => {
            if let Some(tensor) = pick(script.byte()?, tensors) {
                let seen = (tensor.dimensions().len(), tensor.ty(), tensor.data().len());
                std::hint::black_box(seen);
            }
        }
        6 => {
            if let Some(error) = pick(script.byte()?, errors) {
                std::hint::black_box((error.code(), error.data()));
            }
        }
        7 => match script.byte()? % 4 {
            0 => drop(tensors.pop()),
            1 => drop(graphs.pop()),
            2 => drop(contexts.pop()),
            _ => drop(errors.pop()),
        },
        8 => log::log(Level::Info, &NAMES[script.byte()? % NAMES.len()].repeat(script.byte()?)),
        9 => drop(std::hint::black_box(store::get(script.of(&NAMES)?))),
        10 => drop(std::hint::black_box(store::get_all())),
        // Two rows that the model accepts.
        _ => {
            tensors.push(Tensor::new(&[2], TensorType::I64, &[1; 16]));
            tensors.push(Tensor::new(&[2, 1], TensorType::Fp32, &[1; 8]));
            tensors.push(Tensor::new(&[2, 1], TensorType::Fp32, &[2; 8]));
        }
    }
    Some(())
}

fn keep<T>(answer: Result<T, Error>, values: &mut Vec<T>, errors: &mut Vec<Error>) {
    match answer {
        Ok(value) => values.push(value),
        Err(error) => errors.push(error),
    }
}

fn pick<T>(byte: usize, from: &[T]) -> Option<&T> {
    from.get(byte.checked_rem(from.len())?)
}
