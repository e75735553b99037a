//! Functions that do in chunks the work of one instruction.
//!
//! Each takes the operands of its instruction. An instruction that reaches out of bounds writes
//! nothing and traps; here the whole range is checked first, and if it is out of bounds, the
//! instruction itself runs, which traps as always.

use wasm_encoder::{BlockType, Encode as _, Function, InstructionSink, ValType};
use wasmparser::MemoryType;

/// Bytes of memory that one instruction may touch: about 20 µs, and 64 page faults where it is
/// fresh.
pub(super) const CHUNK: u32 = 256 << 10;

/// Width of an address or a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    I32,
    I64,
}

impl Width {
    fn of(memory: &MemoryType) -> Self {
        if memory.memory64 { Width::I64 } else { Width::I32 }
    }

    pub(super) fn value_type(self) -> ValType {
        match self {
            Width::I32 => ValType::I32,
            Width::I64 => ValType::I64,
        }
    }
}

/// An instruction on bulk memory, with the indices of its memories and data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bulk {
    Fill { memory: u32 },
    Copy { to: u32, from: u32 },
    Init { memory: u32, data: u32 },
}

/// Widths of the first and second operand and of the length, which comes third.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operands {
    target: Width,
    source: Width,
    pub(super) length: Width,
}

// Parameters and the local variable of the functions.
const TARGET: u32 = 0;
const SOURCE: u32 = 1;
const LENGTH: u32 = 2;
/// The memory's size in bytes.
const SIZE: u32 = 3;

impl Bulk {
    /// # Errors
    ///
    /// The index of a memory that does not exist.
    pub(super) fn operands(self, memories: &[MemoryType]) -> Result<Operands, u32> {
        let width = |memory: u32| memories.get(memory as usize).map(Width::of).ok_or(memory);
        Ok(match self {
            Bulk::Fill { memory } => {
                let target = width(memory)?;
                Operands { target, source: Width::I32, length: target }
            }
            Bulk::Copy { to, from } => {
                let (target, source) = (width(to)?, width(from)?);
                let length = if target == source { target } else { Width::I32 };
                Operands { target, source, length }
            }
            Bulk::Init { memory, .. } => {
                Operands { target: width(memory)?, source: Width::I32, length: Width::I32 }
            }
        })
    }

    /// Emits the instruction itself.
    pub(super) fn instruction(self, code: &mut InstructionSink<'_>) {
        match self {
            Bulk::Fill { memory } => code.memory_fill(memory),
            Bulk::Copy { to, from } => code.memory_copy(to, from),
            Bulk::Init { memory, data } => code.memory_init(memory, data),
        };
    }
}

impl Operands {
    /// Encodes the type of the function, which takes the operands of the instruction.
    pub(super) fn encode_type(self, output: &mut Vec<u8>) {
        const FUNCTION: u8 = 0x60;
        output.push(FUNCTION);
        3_u32.encode(output);
        for width in [self.target, self.source, self.length] {
            width.value_type().encode(output);
        }
        0_u32.encode(output);
    }
}

/// The function's body. Callers pass a length of more than [`CHUNK`] bytes.
pub(super) fn function(bulk: Bulk, memories: &[MemoryType]) -> Result<Vec<u8>, u32> {
    let operands = bulk.operands(memories)?;
    let page = |memory: u32| i64::from(memories[memory as usize].page_size_log2.unwrap_or(16));
    let mut function = Function::new([(1, ValType::I64)]);
    let code = &mut function.instructions();
    match bulk {
        Bulk::Fill { memory } => {
            trap_beyond(code, bulk, operands, (TARGET, operands.target), (memory, page(memory)));
            chunks_from_below(code, bulk, operands);
        }
        Bulk::Copy { to, from } => {
            trap_beyond(code, bulk, operands, (TARGET, operands.target), (to, page(to)));
            trap_beyond(code, bulk, operands, (SOURCE, operands.source), (from, page(from)));
            // If the two overlap, the source must not be overwritten before it is copied. Two
            // memories never overlap.
            if to == from {
                code.local_get(TARGET).local_get(SOURCE);
                match operands.target {
                    Width::I32 => code.i32_gt_u(),
                    Width::I64 => code.i64_gt_u(),
                };
                code.if_(BlockType::Empty);
                chunks_from_above(code, bulk, operands);
                code.else_();
                chunks_from_below(code, bulk, operands);
                code.end();
            } else {
                chunks_from_below(code, bulk, operands);
            }
        }
        Bulk::Init { memory, data } => {
            trap_beyond(code, bulk, operands, (TARGET, operands.target), (memory, page(memory)));
            // No instruction returns the size of a segment. Copying its last 0 bytes traps if they
            // do not exist; an end beyond 32 bits never exists.
            code.local_get(SOURCE).local_get(LENGTH).i32_add().local_get(SOURCE).i32_lt_u();
            trap_if(code, bulk);
            match operands.target {
                Width::I32 => code.i32_const(0),
                Width::I64 => code.i64_const(0),
            };
            code.local_get(SOURCE).local_get(LENGTH).i32_add().i32_const(0).memory_init(memory, data);
            chunks_from_below(code, bulk, operands);
        }
    }
    code.end();
    Ok(function.into_raw_body())
}

/// Traps as the instruction does when `at` and the length reach beyond a memory.
fn trap_beyond(
    code: &mut InstructionSink<'_>,
    bulk: Bulk,
    operands: Operands,
    at: (u32, Width),
    (memory, page_size_log2): (u32, i64),
) {
    let (at, width) = at;
    code.memory_size(memory);
    if width == Width::I32 {
        code.i64_extend_i32_u();
    }
    code.i64_const(page_size_log2).i64_shl().local_set(SIZE);
    // length > size || at > size - length
    get_i64(code, LENGTH, operands.length);
    code.local_get(SIZE).i64_gt_u();
    get_i64(code, at, width);
    code.local_get(SIZE);
    get_i64(code, LENGTH, operands.length);
    code.i64_sub().i64_gt_u().i32_or();
    trap_if(code, bulk);
}

/// Runs the instruction itself, which traps, if the condition on the stack holds.
fn trap_if(code: &mut InstructionSink<'_>, bulk: Bulk) {
    code.if_(BlockType::Empty).local_get(TARGET).local_get(SOURCE).local_get(LENGTH);
    bulk.instruction(code);
    code.return_().end();
}

/// All chunks in ascending order, and the rest.
fn chunks_from_below(code: &mut InstructionSink<'_>, bulk: Bulk, operands: Operands) {
    code.loop_(BlockType::Empty);
    code.local_get(TARGET).local_get(SOURCE);
    chunk(code, operands.length);
    bulk.instruction(code);
    let moving: &[(u32, Width)] = match bulk {
        Bulk::Fill { .. } => &[(TARGET, operands.target)],
        _ => &[(TARGET, operands.target), (SOURCE, operands.source)],
    };
    for &(local, width) in moving {
        code.local_get(local);
        chunk(code, width);
        match width {
            Width::I32 => code.i32_add(),
            Width::I64 => code.i64_add(),
        };
        code.local_set(local);
    }
    subtract_chunk(code, operands.length);
    repeat_while_more(code, operands.length);
    code.local_get(TARGET).local_get(SOURCE).local_get(LENGTH);
    bulk.instruction(code);
}

/// All chunks in descending order, and the rest below them.
fn chunks_from_above(code: &mut InstructionSink<'_>, bulk: Bulk, operands: Operands) {
    code.loop_(BlockType::Empty);
    subtract_chunk(code, operands.length);
    for (local, width) in [(TARGET, operands.target), (SOURCE, operands.source)] {
        code.local_get(local).local_get(LENGTH);
        match width {
            Width::I32 => code.i32_add(),
            Width::I64 => code.i64_add(),
        };
    }
    chunk(code, operands.length);
    bulk.instruction(code);
    repeat_while_more(code, operands.length);
    code.local_get(TARGET).local_get(SOURCE).local_get(LENGTH);
    bulk.instruction(code);
}

/// Subtracts a chunk from the length.
fn subtract_chunk(code: &mut InstructionSink<'_>, width: Width) {
    code.local_get(LENGTH);
    chunk(code, width);
    match width {
        Width::I32 => code.i32_sub(),
        Width::I64 => code.i64_sub(),
    };
    code.local_set(LENGTH);
}

/// The end of a loop that repeats while more than a chunk is left.
fn repeat_while_more(code: &mut InstructionSink<'_>, width: Width) {
    code.local_get(LENGTH);
    chunk(code, width);
    match width {
        Width::I32 => code.i32_gt_u(),
        Width::I64 => code.i64_gt_u(),
    };
    code.br_if(0).end();
}

fn chunk(code: &mut InstructionSink<'_>, width: Width) {
    match width {
        Width::I32 => code.i32_const(CHUNK as i32),
        Width::I64 => code.i64_const(i64::from(CHUNK)),
    };
}

fn get_i64(code: &mut InstructionSink<'_>, local: u32, width: Width) {
    code.local_get(local);
    if width == Width::I32 {
        code.i64_extend_i32_u();
    }
}
