//! Prints the speed of products of Phi-3 Mini's four shapes: `products [TYPES [TOKENS [INSTRUCTION_SET]]]`, lists with commas.
//!
//! Each matrix is repeated until its copies exceed the caches, so that weights come from memory as they do in a model. The figures are
//! medians with least and greatest; one operation is a multiplication or an addition. Each is set against the roofline: the int8 peak, or
//! the time in which memory gives the weights, whichever is slower, both measured at the start.

mod limits;

use std::time::Instant;

use infer_kernels::{
    Activations, Pool, QuantizedMatrix, WeightType, Write, instruction_set, set_instruction_set,
};

const SHAPES: [(&str, usize, usize); 4] =
    [("qkv", 9216, 3072), ("output", 3072, 3072), ("gate_up", 16384, 3072), ("down", 3072, 8192)];
/// More than the last-level cache holds.
const RESIDENT_BYTES: usize = 400 << 20;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let types = arguments.next().unwrap_or_else(|| "Q4_0,Q4_K,Q6_K,Q8_0".to_owned());
    let tokens = arguments.next().unwrap_or_else(|| "1,8,64,128,512".to_owned());
    if let Some(name) = arguments.next() {
        set_instruction_set(&name).expect("an instruction set of this CPU");
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let pool = Pool::new(threads).expect("threads");
    let limits = Limits { gigaops: limits::int8_gigaops(&pool), gigabytes: limits::read_gigabytes(&pool) };
    println!("{threads} threads, {}, memory read at {:.1} GB/s", instruction_set(), limits.gigabytes);
    if let Some(gigaops) = limits.gigaops {
        println!("int8 peak {gigaops:.0} GOP/s");
    }
    for name in types.split(',') {
        let ty = WeightType::ALL
            .into_iter()
            .find(|ty| ty.to_string() == name)
            .expect("a weight type such as Q4_K");
        for (shape, rows, columns) in SHAPES {
            let matrices = matrices(&pool, ty, rows, columns);
            for tokens in tokens.split(',') {
                measure(&pool, &matrices, shape, tokens.parse().expect("a number of tokens"), &limits);
            }
        }
    }
}

/// Of all threads together.
struct Limits {
    gigaops: Option<f64>,
    gigabytes: f64,
}

fn matrices(pool: &Pool, ty: WeightType, rows: usize, columns: usize) -> Vec<QuantizedMatrix> {
    let bytes = ty.row_bytes(columns).expect("whole blocks") * rows;
    let blocks: Vec<u8> = (0..bytes)
        .map(|i| if i % 2 == 1 { 0x21 } else { (i.wrapping_mul(2_654_435_761) >> 7) as u8 })
        .collect();
    let pack = |_| QuantizedMatrix::pack(pool, ty, &blocks, rows, columns).expect("a matrix");
    (0..(RESIDENT_BYTES / bytes).max(2)).map(pack).collect()
}

fn measure(pool: &Pool, matrices: &[QuantizedMatrix], shape: &str, tokens: usize, limits: &Limits) {
    let (rows, columns, ty) = (matrices[0].rows(), matrices[0].columns(), matrices[0].weight_type());
    let values: Vec<f32> = (0..tokens * columns).map(|i| (i * 37 % 201) as f32 / 100.0 - 1.0).collect();
    let mut input = Activations::new();
    let mut out = vec![0.0; tokens * rows];
    let runs = if tokens >= 64 { 7 } else { matrices.len().max(15) };
    let mut seconds = Vec::new();
    for run in 0..runs + 2 {
        let start = Instant::now();
        input.set(pool, &values, tokens, columns);
        matrices[run % matrices.len()].matmul(pool, &mut input, &mut out, rows, Write::Set);
        seconds.push(start.elapsed().as_secs_f64());
    }
    let seconds = &mut seconds[2..];
    seconds.sort_by(f64::total_cmp);
    let operations = (2 * tokens * rows * columns) as f64 / 1e9;
    let gigabytes = matrices[0].size_bytes() as f64 / 1e9;
    let median = seconds[runs / 2];
    print!(
        "{ty} {shape} {rows} × {columns}, {tokens} tokens: {:.3} ms, {:.0} GOP/s ({:.0} to {:.0}), weights at {:.1} GB/s",
        median * 1e3,
        operations / median,
        operations / seconds[runs - 1],
        operations / seconds[0],
        gigabytes / median,
    );
    let least = (gigabytes / limits.gigabytes).max(limits.gigaops.map_or(0.0, |peak| operations / peak));
    println!(", {:.2} of the roofline", least / median);
}
