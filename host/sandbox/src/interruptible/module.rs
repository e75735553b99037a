//! Changes to core modules: replaced instructions and inserted checks of the clock.

use wasm_encoder::{BlockType, CodeSection, Encode as _, InstructionSink};
use wasmparser::{
    BinaryReader, CodeSectionReader, CompositeInnerType, FunctionBody, FunctionSectionReader,
    ImportSectionReader, MemorySectionReader, MemoryType, Operator, OperatorsReader, Result, TypeRef,
    TypeSectionReader,
};

use super::binary::{MODULE, push_section, sections};
use super::chunked::{self, Bulk, CHUNK, Operands, Width};
use super::pace::Pace;

// Sections of a module.
const CUSTOM: u8 = 0;
const TYPE: u8 = 1;
const IMPORT: u8 = 2;
const FUNCTION: u8 = 3;
const MEMORY: u8 = 5;
const CODE: u8 = 10;

/// Custom sections that refer to places in the code, which move.
const PLACES: [&str; 2] = ["metadata.code.", ".debug_"];

/// `loop end`: compiled code checks the clock at the start of each loop iteration.
const CHECK: [u8; 3] = [0x03, 0x40, 0x0b];

/// Items that the code of a module can name.
#[derive(Default)]
struct Module {
    /// Number of parameters of each type; `None` if it is not a function type.
    parameters: Vec<Option<u32>>,
    imported_functions: u32,
    /// Types of the module's own functions.
    functions: Vec<u32>,
    memories: Vec<MemoryType>,
    /// Functions that are added.
    added: Vec<(Bulk, Operands)>,
}

/// Returns the module in `binary`, interruptible throughout.
pub(super) fn interruptible(binary: &[u8]) -> Result<Vec<u8>> {
    let mut module = Module::default();
    let sections: Vec<(u8, &[u8])> = sections(binary).collect::<Result<_>>()?;
    for &(id, content) in &sections {
        module.read(id, BinaryReader::new(content, 0))?;
    }
    let mut code = Vec::new();
    for &(id, content) in &sections {
        if id == CODE {
            code.push(module.code(content)?);
        }
    }
    let mut code = code.into_iter();
    let mut output = MODULE.to_vec();
    for (id, content) in sections {
        match id {
            TYPE => push_section(&mut output, id, &module.types(content)?),
            FUNCTION => push_section(&mut output, id, &module.function_types(content)?),
            CODE => push_section(&mut output, id, &code.next().unwrap_or_default()),
            CUSTOM if refers_to_places(content) => {}
            _ => push_section(&mut output, id, content),
        }
    }
    Ok(output)
}

fn refers_to_places(custom: &[u8]) -> bool {
    let name = BinaryReader::new(custom, 0).read_string();
    name.is_ok_and(|name| PLACES.iter().any(|place| name.starts_with(place)))
}

impl Module {
    fn read(&mut self, id: u8, content: BinaryReader<'_>) -> Result<()> {
        match id {
            TYPE => {
                for group in TypeSectionReader::new(content)? {
                    self.parameters.extend(group?.types().map(|ty| match &ty.composite_type.inner {
                        CompositeInnerType::Func(ty) => u32::try_from(ty.params().len()).ok(),
                        _ => None,
                    }));
                }
            }
            IMPORT => {
                for import in ImportSectionReader::new(content)?.into_imports() {
                    match import?.ty {
                        TypeRef::Func(_) | TypeRef::FuncExact(_) => self.imported_functions += 1,
                        TypeRef::Memory(memory) => self.memories.push(memory),
                        _ => {}
                    }
                }
            }
            FUNCTION => {
                for ty in FunctionSectionReader::new(content)? {
                    self.functions.push(ty?);
                }
            }
            MEMORY => {
                for memory in MemorySectionReader::new(content)? {
                    self.memories.push(memory?);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The type section, with the types of added functions last.
    fn types(&self, content: &[u8]) -> Result<Vec<u8>> {
        let mut output = self.longer(content)?;
        for (_, operands) in &self.added {
            operands.encode_type(&mut output);
        }
        Ok(output)
    }

    /// The function section, with the added functions last.
    fn function_types(&self, content: &[u8]) -> Result<Vec<u8>> {
        let mut output = self.longer(content)?;
        for added in 0..self.added.len() {
            self.type_of_added(added).encode(&mut output);
        }
        Ok(output)
    }

    /// A section that starts with a count of its items, raised by the added functions.
    fn longer(&self, content: &[u8]) -> Result<Vec<u8>> {
        let mut reader = BinaryReader::new(content, 0);
        let count = reader.read_var_u32()?;
        let mut output = Vec::with_capacity(content.len() + 16);
        count.saturating_add(self.added.len() as u32).encode(&mut output);
        output.extend_from_slice(&content[reader.current_position()..]);
        Ok(output)
    }

    fn type_of_added(&self, added: usize) -> u32 {
        (self.parameters.len() + added) as u32
    }

    /// The code section, with the bodies of added functions last.
    fn code(&mut self, content: &[u8]) -> Result<Vec<u8>> {
        let mut section = CodeSection::new();
        for (index, body) in CodeSectionReader::new(BinaryReader::new(content, 0))?.into_iter().enumerate() {
            let body = body?;
            match self.body(index, &body, content)? {
                Some(changed) => section.raw(&changed),
                None => section.raw(body.as_bytes()),
            };
        }
        for (bulk, _) in &self.added {
            let function = chunked::function(*bulk, &self.memories);
            section.raw(&function.expect("its memories were found when it was added"));
        }
        let mut output = Vec::with_capacity(content.len());
        section.encode(&mut output);
        // The encoded section starts with its length, which the caller writes.
        let mut reader = BinaryReader::new(&output, 0);
        reader.read_var_u32()?;
        let start = reader.current_position();
        Ok(output.split_off(start))
    }

    /// The changed body of a function; `None` if it stays the same.
    fn body(&mut self, index: usize, body: &FunctionBody<'_>, section: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut locals = body.get_locals_reader()?;
        let groups = locals.get_count();
        let first_group = locals.original_position();
        let mut count = self.parameters_of(index);
        for _ in 0..groups {
            count = count.saturating_add(locals.read()?.0);
        }
        let operators = locals.get_binary_reader();
        let start = operators.original_position();
        let mut operators = OperatorsReader::new(operators);

        let mut lengths = Lengths { first: count, widths: Vec::new() };
        let mut pace = Pace::new(self.imported_functions);
        let mut code = Vec::new();
        let mut copied = start;
        // Value that the previous operator pushed, if that is a constant.
        let mut constant = None;
        while !operators.eof() {
            let at = operators.original_position();
            let operator = operators.read()?;
            if pace.step(&operator) {
                code.extend_from_slice(&section[copied..at]);
                code.extend_from_slice(&CHECK);
                copied = at;
            }
            if let Some(bulk) = bulk(&operator)
                && constant.is_none_or(|length: u64| length > u64::from(CHUNK))
                && let Ok(operands) = bulk.operands(&self.memories)
            {
                code.extend_from_slice(&section[copied..at]);
                self.replace(bulk, operands, constant, &mut lengths, &mut code);
                copied = operators.original_position();
            }
            constant = match operator {
                Operator::I32Const { value } => Some(u64::from(value as u32)),
                Operator::I64Const { value } => Some(value as u64),
                _ => None,
            };
        }
        if copied == start {
            return Ok(None);
        }
        let mut output = Vec::with_capacity(body.as_bytes().len() + code.len());
        groups.saturating_add(lengths.widths.len() as u32).encode(&mut output);
        output.extend_from_slice(&section[first_group..start]);
        for width in &lengths.widths {
            1_u32.encode(&mut output);
            width.value_type().encode(&mut output);
        }
        output.extend_from_slice(&code);
        output.extend_from_slice(&section[copied..operators.original_position()]);
        Ok(Some(output))
    }

    fn parameters_of(&self, function: usize) -> u32 {
        let ty = self.functions.get(function).and_then(|&ty| self.parameters.get(ty as usize));
        ty.copied().flatten().unwrap_or_default()
    }

    /// Replaces an instruction by a call of the function that works in chunks. If the length is
    /// known only at run time, the call is made only when it is long.
    fn replace(
        &mut self,
        bulk: Bulk,
        operands: Operands,
        constant: Option<u64>,
        lengths: &mut Lengths,
        code: &mut Vec<u8>,
    ) {
        let added = self.added.iter().position(|(added, _)| *added == bulk).unwrap_or_else(|| {
            self.added.push((bulk, operands));
            self.added.len() - 1
        });
        let function = self.imported_functions + (self.functions.len() + added) as u32;
        let ty = self.type_of_added(added);
        let mut sink = InstructionSink::new(code);
        if constant.is_some() {
            sink.call(function);
            return;
        }
        let length = lengths.local(operands.length);
        sink.local_tee(length);
        match operands.length {
            Width::I32 => sink.local_get(length).i32_const(CHUNK as i32).i32_gt_u(),
            Width::I64 => sink.local_get(length).i64_const(i64::from(CHUNK)).i64_gt_u(),
        };
        sink.if_(BlockType::FunctionType(ty)).call(function).else_();
        bulk.instruction(&mut sink);
        sink.end();
    }
}

/// Locals for the lengths of instructions, one for each width in use, after the function's own.
struct Lengths {
    first: u32,
    widths: Vec<Width>,
}

impl Lengths {
    fn local(&mut self, width: Width) -> u32 {
        let at = self.widths.iter().position(|is| *is == width).unwrap_or_else(|| {
            self.widths.push(width);
            self.widths.len() - 1
        });
        self.first.saturating_add(at as u32)
    }
}

fn bulk(operator: &Operator<'_>) -> Option<Bulk> {
    match *operator {
        Operator::MemoryFill { mem } => Some(Bulk::Fill { memory: mem }),
        Operator::MemoryCopy { dst_mem, src_mem } => Some(Bulk::Copy { to: dst_mem, from: src_mem }),
        Operator::MemoryInit { mem, data_index } => Some(Bulk::Init { memory: mem, data: data_index }),
        _ => None,
    }
}
