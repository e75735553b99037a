//! Inputs and outputs of a model, on which its card and its file agree, and checks of tensors
//! against them.

#[cfg(test)]
mod tests;

use super::job::{Job, Joins};
use crate::backend::{BackendError, Port};
use crate::card::{Axis, Card};
use crate::dtype::DType;
use crate::limits::{MAX_AXES_PRODUCT, MAX_AXIS_WITHOUT_LIMIT, MAX_ROWS};
use crate::tensor::{Tensor, shape_text};
use crate::text::{QUOTE_BYTES, excerpt};

/// Tensors of a model with the types and shapes of its card, in the order of its file.
pub(super) struct Signature {
    inputs: Vec<Slot>,
    outputs: Vec<Slot>,
    /// Reason why jobs are computed one at a time; `None` if they are joined on axis 0.
    unbatched: Option<String>,
}

struct Slot {
    name: String,
    dtype: DType,
    shape: Vec<Axis>,
    /// Value with which a shorter row is padded on axis 1.
    padding: i64,
}

impl Slot {
    /// Type and shape as shown in messages: `f32 (N, 1000)`.
    fn describe(&self) -> String {
        format!("{} {}", self.dtype, shape_text(&self.shape))
    }

    /// Message about the first axis of `shape` that exceeds its limit, if any. A running
    /// computation cannot be interrupted, so these limits bound the time for which one caller
    /// occupies a session.
    fn excess(&self, shape: &[usize], batches: bool) -> Option<String> {
        let (mut product, mut is_bounded) = (1_usize, true);
        for (index, (axis, &size)) in self.shape.iter().zip(shape).enumerate() {
            let Axis::Dynamic { name, max } = axis else { continue };
            product = product.saturating_mul(size);
            let is_batch = batches && index == 0;
            is_bounded &= is_batch || max.is_some();
            let (bound, way_out) = if is_batch {
                (max.unwrap_or(MAX_ROWS), "split the rows into several jobs")
            } else {
                (
                    max.unwrap_or(MAX_AXIS_WITHOUT_LIMIT),
                    "send less data, or raise the axis's `max` in the model's card",
                )
            };
            if size > bound {
                return Some(format!(
                    "axis {index} (`{name}`) is {size}, expected at most {bound}; {way_out}"
                ));
            }
        }
        (!is_bounded && product > MAX_AXES_PRODUCT).then(|| {
            format!(
                "the product of its varying axes is {product}, expected at most {MAX_AXES_PRODUCT}; send less data, or \
                 set `max` of each of them in the model's card"
            )
        })
    }
}

/// Checked inputs.
#[derive(Debug)]
pub(super) struct Arranged {
    /// Inputs in the order of the file.
    pub(super) inputs: Vec<Tensor>,
    /// Joining with other jobs.
    pub(super) joins: Joins,
}

impl Signature {
    /// Compares the card with the declarations of the file.
    ///
    /// # Errors
    ///
    /// A message with both sides of the first difference.
    pub(super) fn new(card: &Card, inputs: &[Port], outputs: &[Port]) -> Result<Self, String> {
        let slot = |name: &String, dtype: DType, shape: &[Axis]| Slot {
            name: name.clone(),
            dtype,
            shape: shape.to_vec(),
            padding: 0,
        };
        let card_inputs = card.inputs.iter().map(|spec| slot(&spec.name, spec.dtype, &spec.shape)).collect();
        let card_outputs =
            card.outputs.iter().map(|spec| slot(&spec.name, spec.dtype, &spec.shape)).collect();
        let inputs = agree("input", card_inputs, inputs)?;
        let outputs = agree("output", card_outputs, outputs)?;
        let unbatched = if card.batch_axis.is_some() { None } else { Some(why_unbatched(&inputs, &outputs)) };
        Ok(Signature { inputs, outputs, unbatched })
    }

    /// Reason why jobs are computed one at a time; `None` if they may be computed in batches.
    pub(super) fn unbatched(&self) -> Option<&str> {
        self.unbatched.as_deref()
    }

    /// Checks the inputs and sorts them in the order of the file.
    ///
    /// # Errors
    ///
    /// A message about the first input that does not match the card, or exceeds a limit of jobs.
    pub(super) fn arrange(&self, named: Vec<(String, Tensor)>) -> Result<Arranged, String> {
        let mut found: Vec<Option<Tensor>> = self.inputs.iter().map(|_| None).collect();
        for (name, tensor) in named {
            let Some(position) = self.inputs.iter().position(|slot| slot.name == name) else {
                let known: Vec<_> = self.inputs.iter().map(|slot| format!("`{}`", slot.name)).collect();
                let name = excerpt(&name, QUOTE_BYTES);
                return Err(format!("unknown input `{name}`, expected {}", known.join(", ")));
            };
            let slot = &self.inputs[position];
            if let Some(wrong) = mismatch(slot, &tensor) {
                return Err(format!("input `{name}` is {wrong}, expected {}", slot.describe()));
            }
            if let Some(wrong) = slot.excess(tensor.shape(), self.unbatched.is_none()) {
                return Err(format!("input `{name}`: {wrong}"));
            }
            if found[position].replace(tensor).is_some() {
                return Err(format!("input `{name}` is given twice"));
            }
        }
        let inputs = found.into_iter().zip(&self.inputs).map(|(tensor, slot)| {
            tensor.ok_or_else(|| format!("input `{}` is missing, expected {}", slot.name, slot.describe()))
        });
        let inputs: Vec<_> = inputs.collect::<Result<_, _>>()?;
        let mut rows = inputs.iter().map(|input| input.shape().first().copied());
        let first = rows.next().flatten();
        let rows = first.filter(|_| self.unbatched.is_none() && rows.all(|other| other == first));
        Ok(Arranged { inputs, joins: rows.map_or(Joins::Never, Joins::Rows) })
    }

    /// Sets the value with which shorter rows of input `name` are padded.
    pub(super) fn set_padding(&mut self, name: &str, value: i64) {
        if let Some(slot) = self.inputs.iter_mut().find(|slot| slot.name == name) {
            slot.padding = value;
        }
    }

    /// Names, types and axes of the inputs, in the order of the file.
    pub(super) fn inputs(&self) -> impl Iterator<Item = (&str, DType, &[Axis])> {
        self.inputs.iter().map(|slot| (slot.name.as_str(), slot.dtype, slot.shape.as_slice()))
    }

    /// Number of rows of axis 0 of a call; 1 for scalars.
    pub(super) fn rows(&self, inputs: &[Tensor]) -> usize {
        inputs.first().and_then(|input| input.shape().first()).copied().unwrap_or(1)
    }

    /// Amount of work: the product of the varying axes of the input for which it is largest.
    pub(super) fn work(&self, inputs: &[Tensor]) -> usize {
        let varying = |(slot, input): (&Slot, &Tensor)| {
            let axes = slot.shape.iter().zip(input.shape());
            let sizes = axes.filter(|(axis, _)| matches!(axis, Axis::Dynamic { .. })).map(|(_, size)| *size);
            sizes.fold(1, usize::saturating_mul)
        };
        self.inputs.iter().zip(inputs).map(varying).max().unwrap_or(1)
    }

    /// Checks the outputs of the backend against the card.
    ///
    /// # Errors
    ///
    /// A message about the first output that differs.
    pub(super) fn check(&self, outputs: &[Tensor]) -> Result<(), String> {
        if outputs.len() != self.outputs.len() {
            return Err(format!("{} outputs were computed, expected {}", outputs.len(), self.outputs.len()));
        }
        for (slot, output) in self.outputs.iter().zip(outputs) {
            if output.dtype() != slot.dtype || !fits(&slot.shape, output.shape()) {
                let found = format!("{} {}", output.dtype(), shape_text(output.shape()));
                return Err(format!("output `{}` is {found}, expected {}", slot.name, slot.describe()));
            }
        }
        Ok(())
    }

    /// Adds names to the outputs.
    pub(super) fn name(&self, outputs: Vec<Tensor>) -> Vec<(String, Tensor)> {
        self.outputs.iter().map(|slot| slot.name.clone()).zip(outputs).collect()
    }

    /// Concatenates the inputs of the jobs on axis 0, and pads shorter rows of tokens. The queue
    /// selects only jobs that fit.
    pub(super) fn concatenate(&self, jobs: &[Job]) -> Result<Vec<Tensor>, BackendError> {
        let rows: usize = jobs.iter().map(Job::rows).sum();
        let longest = jobs.iter().filter_map(Job::padded_tokens).max();
        let join = |(position, slot): (usize, &Slot)| {
            let parts = jobs.iter().filter_map(|job| job.inputs.get(position));
            let mut shape = parts.clone().next().map(|part| part.shape().to_vec()).unwrap_or_default();
            if let Some(axis) = shape.first_mut() {
                *axis = rows;
            }
            let mut data = Vec::with_capacity(parts.clone().map(|part| part.data().len()).sum());
            match longest {
                None => parts.for_each(|part| data.extend_from_slice(part.data())),
                Some(longest) => {
                    shape[1] = longest;
                    for part in parts {
                        data.extend_from_slice(part.data());
                        pad(&mut data, slot, longest - part.shape()[1]);
                    }
                }
            }
            Tensor::new(slot.dtype, shape, data).map_err(|error| BackendError::Failed(error.to_string()))
        };
        self.inputs.iter().enumerate().map(join).collect()
    }
}

/// Appends `count` times the padding of `slot`.
fn pad(data: &mut Vec<u8>, slot: &Slot, count: usize) {
    for _ in 0..count {
        match slot.dtype {
            DType::I32 => data.extend((slot.padding as i32).to_le_bytes()),
            _ => data.extend(slot.padding.to_le_bytes()),
        }
    }
}

/// Reason why the rows of different jobs are not joined, for a card without `batch_axis`.
fn why_unbatched(inputs: &[Slot], outputs: &[Slot]) -> String {
    let kinds = [("input", inputs), ("output", outputs)];
    for (kind, slot) in kinds.iter().flat_map(|(kind, slots)| slots.iter().map(move |slot| (kind, slot))) {
        let name = &slot.name;
        match slot.shape.first() {
            Some(Axis::Dynamic { .. }) => {}
            Some(Axis::Fixed(size)) => return format!("axis 0 of {kind} `{name}` is always {size}"),
            None => return format!("{kind} `{name}` is a scalar"),
        }
    }
    "its card has no `batch_axis = 0`, so rows of axis 0 may depend on each other".to_owned()
}

/// Matches the tensors of the card with those of the file, and returns them in the order of the
/// file.
fn agree(kind: &str, card: Vec<Slot>, file: &[Port]) -> Result<Vec<Slot>, String> {
    let mut card: Vec<Option<Slot>> = card.into_iter().map(Some).collect();
    let mut slots = Vec::with_capacity(file.len());
    for port in file {
        let found = card.iter_mut().find(|slot| slot.as_ref().is_some_and(|slot| slot.name == port.name));
        let Some(slot) = found.and_then(Option::take) else {
            let (name, port) = (&port.name, port.describe());
            return Err(format!("the file has {kind} `{name}`, {port}, which the card does not list"));
        };
        if port.dtypes.is_empty() {
            let (name, declared) = (&port.name, &port.declared);
            let known: Vec<_> = DType::ALL.iter().map(ToString::to_string).collect();
            return Err(format!(
                "{kind} `{name}` is {declared} in the file, expected one of {}",
                known.join(", ")
            ));
        }
        let shape_agrees = port.shape.as_ref().is_none_or(|declared| narrows(&slot.shape, declared));
        if !port.dtypes.contains(&slot.dtype) || !shape_agrees {
            let (name, in_card, in_file) = (&slot.name, slot.describe(), port.describe());
            return Err(format!("{kind} `{name}` is {in_card} in the card and {in_file} in the file"));
        }
        slots.push(slot);
    }
    match card.into_iter().flatten().next() {
        None => Ok(slots),
        Some(slot) => {
            let names: Vec<_> = file.iter().map(|port| format!("`{}`", port.name)).collect();
            let (name, slot, names) = (&slot.name, slot.describe(), names.join(", "));
            Err(format!("the card lists {kind} `{name}`, {slot}; the file has {names}"))
        }
    }
}

/// True if the shape in the card equals the one in the file, or fixes axes that the file leaves
/// open.
fn narrows(card: &[Axis], file: &[Axis]) -> bool {
    let narrows = |(card, file): (&Axis, &Axis)| match (card, file) {
        (Axis::Fixed(size), Axis::Fixed(declared)) => size == declared,
        (_, Axis::Dynamic { .. }) => true,
        (Axis::Dynamic { .. }, Axis::Fixed(_)) => false,
    };
    card.len() == file.len() && card.iter().zip(file).all(narrows)
}

/// True if `shape` matches `axes`.
fn fits(axes: &[Axis], shape: &[usize]) -> bool {
    let fits = |(axis, size): (&Axis, &usize)| match axis {
        Axis::Fixed(expected) => expected == size,
        Axis::Dynamic { .. } => true,
    };
    axes.len() == shape.len() && axes.iter().zip(shape).all(fits)
}

/// Message about a tensor that does not match `slot`, if so.
fn mismatch(slot: &Slot, tensor: &Tensor) -> Option<String> {
    let found = format_args!("{} {}", tensor.dtype(), shape_text(tensor.shape()));
    if tensor.dtype() != slot.dtype || !fits(&slot.shape, tensor.shape()) {
        return Some(found.to_string());
    }
    // Backends disagree about tensors without elements, and some divide by the size of an axis.
    tensor.shape().contains(&0).then(|| format!("{found}, which has no elements"))
}
