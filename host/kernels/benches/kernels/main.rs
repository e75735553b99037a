//! Benchmarks of products and attention against the machine's limits.
//!
//! Usage: `cargo bench -p infer-kernels -- [PARTS [TOKENS [INSTRUCTION_SET]]]`. PARTS lists weight
//! types and `attention`; lists are separated by commas. `all` is every weight type.
//!
//! The roofline of a product is the lower of two speeds: the peak arithmetic throughput, and the
//! rate at which memory delivers the weights. Both are measured before each product, followed by an
//! untimed product, as in a model. Interference from other processes therefore affects all three
//! alike. A cell shows the median speed and, in brackets, the median fraction of the roofline with
//! its quartiles. Setting and quantising the input is part of a product.

mod limits;

use std::error::Error;
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use infer_kernels::{
    Activations, AttentionShape, BLOCK_TOKENS, Chunk, KvType, PackedSource, Pool, QuantizedMatrix, Span,
    WeightType, Write, attention, instruction_set, packed_bytes, set_instruction_set,
};
use limits::{Arithmetic, Limits, READ_BYTES};

/// Matrices of Phi-3 Mini: `(name, rows, columns)`.
const SHAPES: [(&str, usize, usize); 5] = [
    ("qkv", 9216, 3072),
    ("output", 3072, 3072),
    ("gate_up", 16384, 3072),
    ("down", 3072, 8192),
    ("vocabulary", 32064, 3072),
];

/// Bytes of weights, far more than the last-level cache holds. The source also holds the bytes that
/// bandwidth measurements read.
const WEIGHTS_BYTES: usize = 512 << 20;
const SOURCE_BYTES: usize = WEIGHTS_BYTES + 2 * READ_BYTES;

/// Time of one cell, and the minimum and maximum number of its measurements.
const CELL: Duration = Duration::from_millis(700);
const ROUNDS: Range<usize> = 7..60;

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo adds `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let parts = arguments.next().unwrap_or_else(|| "Q4_K,Q4_0,Q6_K,Q8_0,attention".to_owned());
    let tokens = arguments.next().unwrap_or_else(|| "1,8,64,128,512".to_owned());
    let tokens: Vec<usize> = tokens.split(',').map(number).collect::<Result<_, _>>()?;
    if let Some(name) = arguments.next() {
        set_instruction_set(&name)?;
    }
    let parts: Vec<Part> = match parts.as_str() {
        "all" => WeightType::ALL.map(Part::Products).into(),
        listed => listed.split(',').map(part).collect::<Result<_, _>>()?,
    };
    let pool = Pool::new(std::thread::available_parallelism().map_or(1, usize::from))?;
    let source = Source::new(&pool);
    println!("{} threads, {}", pool.threads(), instruction_set());
    let mut limits = Limits::new(&pool, source.not_weights());
    for part in parts {
        match part {
            Part::Products(ty) => products(&pool, &source, ty, &tokens, &mut limits),
            Part::Attention => attentions(&pool),
        }
    }
    println!("\n{limits}");
    Ok(())
}

enum Part {
    Products(WeightType),
    Attention,
}

fn part(name: &str) -> Result<Part, String> {
    if name == "attention" {
        return Ok(Part::Attention);
    }
    let found = WeightType::ALL.into_iter().find(|ty| ty.to_string() == name);
    let names = WeightType::ALL.map(|ty| ty.to_string()).join(", ");
    found
        .map(Part::Products)
        .ok_or_else(|| format!("part `{name}`: expected one of {names}, attention, or all"))
}

fn number(text: &str) -> Result<usize, String> {
    let found = text.parse().ok().filter(|tokens| (1..=4096).contains(tokens));
    found.ok_or_else(|| format!("tokens `{text}`: expected a number from 1 to 4096"))
}

/// Packed weights that all matrices share. Every byte pattern is valid; these give scales of about
/// 0.01.
struct Source {
    bytes: Arc<Vec<u8>>,
    start: usize,
}

impl Source {
    fn new(pool: &Pool) -> Self {
        const HUGE_PAGE: usize = 2 << 20;
        let mut bytes = vec![0u8; SOURCE_BYTES + HUGE_PAGE];
        let start = bytes.as_ptr().align_offset(HUGE_PAGE);
        #[cfg(target_os = "linux")]
        // SAFETY: the pages are inside `bytes`. Packed matrices get the same advice, and a failure
        // has no effect.
        unsafe {
            libc::madvise(bytes.as_mut_ptr().add(start).cast(), SOURCE_BYTES, libc::MADV_HUGEPAGE);
        }
        let parts: Vec<_> =
            bytes[start..][..SOURCE_BYTES].chunks_mut(8 << 20).map(std::sync::Mutex::new).collect();
        pool.run(parts.len(), |part| {
            let mut bytes = parts[part].lock().expect("each is locked once");
            for (i, byte) in bytes.iter_mut().enumerate() {
                *byte = if i % 2 == 1 { 0x21 } else { (i.wrapping_mul(2_654_435_761) >> 7) as u8 };
            }
        });
        Self { bytes: Arc::new(bytes), start }
    }

    fn not_weights(&self) -> &[u8] {
        &self.bytes[self.start..][WEIGHTS_BYTES..SOURCE_BYTES]
    }

    /// As many matrices of this shape as fit into the weights.
    fn matrices(&self, ty: WeightType, rows: usize, columns: usize) -> Vec<QuantizedMatrix> {
        let size = packed_bytes(ty, rows, columns).expect("whole blocks");
        let matrix = |index: usize| {
            let (source, start): (PackedSource, usize) = (self.bytes.clone(), self.start + index * size);
            QuantizedMatrix::from_packed(ty, source, start..start + size, rows, columns)
                .expect("packed bytes")
        };
        (0..WEIGHTS_BYTES / size).map(matrix).collect()
    }
}

/// Repeats `round` for the time of one cell.
fn rounds(mut round: impl FnMut(usize)) {
    round(0);
    let start = Instant::now();
    for index in 1..=ROUNDS.end {
        if index > ROUNDS.start && start.elapsed() > CELL {
            break;
        }
        round(index);
    }
}

fn products(pool: &Pool, source: &Source, ty: WeightType, tokens: &[usize], limits: &mut Limits<'_>) {
    let header: String = tokens.iter().map(|tokens| format!("| {tokens} ")).collect();
    println!("\n| {ty}, GOP/s (of the roofline) by tokens {header}|");
    println!("|---{}|", "|---".repeat(tokens.len()));
    let arithmetic = if ty.block_elements() == 1 { Arithmetic::Float } else { Arithmetic::Int8 };
    for (shape, rows, columns) in SHAPES {
        print!("| {shape} ({rows}, {columns}) ");
        let matrices = source.matrices(ty, rows, columns);
        for &tokens in tokens {
            let values: Vec<f32> =
                (0..tokens * columns).map(|i| (i * 37 % 201) as f32 / 100.0 - 1.0).collect();
            let mut input = Activations::new();
            let mut out = vec![0.0; tokens * rows];
            let operations = (2 * tokens * rows * columns) as f64;
            let bytes = matrices[0].size_bytes() as f64;
            let (mut speeds, mut fractions) = (Vec::new(), Vec::new());
            rounds(|index| {
                let minimum = limits.seconds(arithmetic, operations, bytes);
                let mut product = |index: usize| {
                    input.set(pool, black_box(&values), tokens, columns);
                    matrices[index % matrices.len()].matmul(pool, &mut input, &mut out, rows, Write::Set);
                };
                // Measuring the limits evicted the data that a preceding product leaves in the
                // caches.
                product(2 * index);
                let start = Instant::now();
                product(2 * index + 1);
                let seconds = start.elapsed().as_secs_f64();
                if index > 0 {
                    speeds.push(operations / seconds / 1e9);
                    fractions.push(minimum / seconds);
                }
            });
            let ([_, speed, _], [low, fraction, high]) = (quartiles(&mut speeds), quartiles(&mut fractions));
            print!("| {speed:.0} ({fraction:.2}, {low:.2} to {high:.2}) ");
        }
        println!("|");
    }
}

/// Lower quartile, median, upper quartile.
fn quartiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values.get(values.len() * quarter / 4).copied().unwrap_or(f64::NAN))
}

fn attentions(pool: &Pool) {
    println!("\n| attention: ms | 128 queries after 0 | 128 after 384 | 1 after 511 |\n|---|---|---|---|");
    let shapes = [("Phi-3 Mini", 32, 32, 96), ("Qwen2.5 0.5B", 14, 2, 64)];
    let cases = shapes.into_iter().flat_map(|shape| KvType::ALL.map(|ty| (shape, ty)));
    for ((name, query_heads, kv_heads, head_dim), kv_type) in cases {
        let shape = AttentionShape { kv_type, ..AttentionShape::new(query_heads, kv_heads, head_dim) };
        print!("| {name}, {} ", kv_type.name());
        for (rows, position) in [(128usize, 0usize), (128, 384), (1, 511)] {
            // Small numbers in each type.
            let block = [0x30u8].repeat(shape.layer_bytes());
            let blocks = vec![block; (position + rows).div_ceil(BLOCK_TOKENS)];
            let spans: Vec<Span<'_>> =
                blocks.iter().map(|block| Span { tokens: BLOCK_TOKENS, block }).collect();
            let qkv: Vec<f32> =
                (0..rows * shape.qkv_columns()).map(|i| (i * 37 % 201) as f32 / 100.0 - 1.0).collect();
            let mut out = vec![0.0; rows * query_heads * head_dim];
            let mut times = Vec::new();
            rounds(|_| {
                let start = Instant::now();
                let chunk = Chunk { rows: 0..rows, position, spans: &spans };
                attention(pool, &shape, black_box(&qkv), &[chunk], &mut out);
                times.push(start.elapsed().as_secs_f64() * 1e3);
            });
            let [low, time, high] = quartiles(&mut times);
            print!("| {time:.3} ({low:.3} to {high:.3}) ");
        }
        println!("|");
    }
}
