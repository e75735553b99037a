//! What a model takes and gives, agreed between its card and its file; and whether given tensors
//! are that.

#[cfg(test)]
mod tests;

use super::queue::Job;
use crate::backend::{BackendError, Port};
use crate::card::{Axis, Card, DEFAULT_MAX, DEFAULT_MAX_PRODUCT, MAX_ROWS};
use crate::dtype::DType;
use crate::tensor::{Tensor, shape_text};
use crate::text::{QUOTE_BYTES, excerpt};

/// The tensors of a model, each as its card describes it, in the order of its file.
pub(super) struct Signature {
    inputs: Vec<Slot>,
    outputs: Vec<Slot>,
    /// Why jobs are computed one by one; none where their rows are joined on axis 0.
    unbatched: Option<String>,
}

struct Slot {
    name: String,
    dtype: DType,
    shape: Vec<Axis>,
}

impl Slot {
    /// Type and shape as messages show them: `f32 (N, 1000)`.
    fn describe(&self) -> String {
        format!("{} {}", self.dtype, shape_text(&self.shape))
    }

    /// The axis of `shape` that is larger than one job may have it, if any, with its bound and the
    /// way out. A computation that has begun is not interrupted, so these bounds are what one
    /// caller's hold on a session rests on.
    fn excess(&self, shape: &[usize], batches: bool) -> Option<String> {
        let (mut product, mut is_bounded) = (1_usize, true);
        for (index, (axis, &size)) in self.shape.iter().zip(shape).enumerate() {
            let Axis::Dynamic { name, max } = axis else { continue };
            product = product.saturating_mul(size);
            let is_batch = batches && index == 0;
            is_bounded &= is_batch || max.is_some();
            let (bound, way_out) = if is_batch {
                (max.unwrap_or(MAX_ROWS), "run the rows in several jobs")
            } else {
                (max.unwrap_or(DEFAULT_MAX), "send less, or raise the axis's `max` in the model's card")
            };
            if size > bound {
                return Some(format!(
                    "axis {index} (`{name}`) is {size}, expected at most {bound}; {way_out}"
                ));
            }
        }
        (!is_bounded && product > DEFAULT_MAX_PRODUCT).then(|| {
            format!(
                "its varying axes multiply to {product}, expected at most {DEFAULT_MAX_PRODUCT}; send less at once, or \
                 set `max` of each of them in the model's card"
            )
        })
    }
}

/// Inputs that are what the model takes.
#[derive(Debug)]
pub(super) struct Arranged {
    /// In the order of the file.
    pub(super) inputs: Vec<Tensor>,
    /// The size of axis 0, where it may grow by other jobs' rows.
    pub(super) rows: Option<usize>,
}

impl Signature {
    /// Compare what `card` says with what the file declares.
    ///
    /// # Errors
    ///
    /// A message with both sides of the first disagreement.
    pub(super) fn new(card: &Card, inputs: &[Port], outputs: &[Port]) -> Result<Self, String> {
        let slot = |name: &String, dtype: DType, shape: &[Axis]| Slot {
            name: name.clone(),
            dtype,
            shape: shape.to_vec(),
        };
        let said_in = card.inputs.iter().map(|spec| slot(&spec.name, spec.dtype, &spec.shape)).collect();
        let said_out = card.outputs.iter().map(|spec| slot(&spec.name, spec.dtype, &spec.shape)).collect();
        let inputs = agree("input", said_in, inputs)?;
        let outputs = agree("output", said_out, outputs)?;
        let unbatched = if card.batch_axis.is_some() { None } else { Some(why_unbatched(&inputs, &outputs)) };
        Ok(Signature { inputs, outputs, unbatched })
    }

    /// Why jobs are computed one by one; none where they may be computed together.
    pub(super) fn unbatched(&self) -> Option<&str> {
        self.unbatched.as_deref()
    }

    /// Put `given` in the file's order.
    ///
    /// # Errors
    ///
    /// A message about the first input that is not what the card says, or larger than a job may be.
    pub(super) fn arrange(&self, given: Vec<(String, Tensor)>) -> Result<Arranged, String> {
        let mut found: Vec<Option<Tensor>> = self.inputs.iter().map(|_| None).collect();
        for (name, tensor) in given {
            let Some(position) = self.inputs.iter().position(|slot| slot.name == name) else {
                let known: Vec<_> = self.inputs.iter().map(|slot| format!("`{}`", slot.name)).collect();
                let name = excerpt(&name, QUOTE_BYTES);
                return Err(format!("no input is called `{name}`, expected {}", known.join(", ")));
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
        let rows = if self.unbatched.is_none() && rows.all(|other| other == first) { first } else { None };
        Ok(Arranged { inputs, rows })
    }

    /// Rows of axis 0 that a call has, 1 for scalars.
    pub(super) fn rows(&self, inputs: &[Tensor]) -> usize {
        inputs.first().and_then(|input| input.shape().first()).copied().unwrap_or(1)
    }

    /// How much there is to compute: the product of the varying axes of the input that has most of
    /// it.
    pub(super) fn work(&self, inputs: &[Tensor]) -> usize {
        let varying = |(slot, input): (&Slot, &Tensor)| {
            let axes = slot.shape.iter().zip(input.shape());
            let sizes = axes.filter(|(axis, _)| matches!(axis, Axis::Dynamic { .. })).map(|(_, size)| *size);
            sizes.fold(1, usize::saturating_mul)
        };
        self.inputs.iter().zip(inputs).map(varying).max().unwrap_or(1)
    }

    /// Check that the backend gave what the card says.
    ///
    /// # Errors
    ///
    /// A message about the first output that is not.
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

    /// The outputs with their names.
    pub(super) fn name(&self, outputs: Vec<Tensor>) -> Vec<(String, Tensor)> {
        self.outputs.iter().map(|slot| slot.name.clone()).zip(outputs).collect()
    }

    /// The jobs' inputs one after the other on axis 0. They fit together, or the queue would not
    /// have taken them so.
    pub(super) fn concatenate(&self, jobs: &[Job]) -> Result<Vec<Tensor>, BackendError> {
        let rows: usize = jobs.iter().map(Job::size).sum();
        let join = |(position, slot): (usize, &Slot)| {
            let parts = jobs.iter().filter_map(|job| job.inputs.get(position));
            let mut shape = parts.clone().next().map(|part| part.shape().to_vec()).unwrap_or_default();
            if let Some(axis) = shape.first_mut() {
                *axis = rows;
            }
            let mut data = Vec::with_capacity(parts.clone().map(|part| part.data().len()).sum());
            parts.for_each(|part| data.extend_from_slice(part.data()));
            Tensor::new(slot.dtype, shape, data).map_err(|error| BackendError::Failed(error.to_string()))
        };
        self.inputs.iter().enumerate().map(join).collect()
    }
}

/// Why the rows of different jobs are kept apart, for a card without `batch_axis`.
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
    "its card does not say `batch_axis = 0`, so axis 0 may be one along which a model mixes".to_owned()
}

/// The card's slots in the order of the file.
fn agree(kind: &str, card: Vec<Slot>, file: &[Port]) -> Result<Vec<Slot>, String> {
    let mut card: Vec<Option<Slot>> = card.into_iter().map(Some).collect();
    let mut slots = Vec::with_capacity(file.len());
    for port in file {
        let said = card.iter_mut().find(|slot| slot.as_ref().is_some_and(|slot| slot.name == port.name));
        let Some(slot) = said.and_then(Option::take) else {
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
            let (name, said, is) = (&slot.name, slot.describe(), port.describe());
            return Err(format!("{kind} `{name}` is {said} in the card and {is} in the file"));
        }
        slots.push(slot);
    }
    match card.into_iter().flatten().next() {
        None => Ok(slots),
        Some(slot) => {
            let names: Vec<_> = file.iter().map(|port| format!("`{}`", port.name)).collect();
            let (name, said, names) = (&slot.name, slot.describe(), names.join(", "));
            Err(format!("the card lists {kind} `{name}`, {said}; the file has {names}"))
        }
    }
}

/// Whether the card's shape is the file's, or narrower: a size where the file leaves one open.
fn narrows(card: &[Axis], file: &[Axis]) -> bool {
    let narrows = |(card, file): (&Axis, &Axis)| match (card, file) {
        (Axis::Fixed(said), Axis::Fixed(declared)) => said == declared,
        (_, Axis::Dynamic { .. }) => true,
        (Axis::Dynamic { .. }, Axis::Fixed(_)) => false,
    };
    card.len() == file.len() && card.iter().zip(file).all(narrows)
}

/// Whether a shape is one of those that `axes` describe.
fn fits(axes: &[Axis], shape: &[usize]) -> bool {
    let fits = |(axis, size): (&Axis, &usize)| match axis {
        Axis::Fixed(expected) => expected == size,
        Axis::Dynamic { .. } => true,
    };
    axes.len() == shape.len() && axes.iter().zip(shape).all(fits)
}

/// What is wrong with a tensor that is given for `slot`, if anything.
fn mismatch(slot: &Slot, tensor: &Tensor) -> Option<String> {
    let found = format_args!("{} {}", tensor.dtype(), shape_text(tensor.shape()));
    if tensor.dtype() != slot.dtype || !fits(&slot.shape, tensor.shape()) {
        return Some(found.to_string());
    }
    // Backends differ on tensors without elements, and some divide by an axis.
    tensor.shape().contains(&0).then(|| format!("{found}, which holds no elements"))
}
