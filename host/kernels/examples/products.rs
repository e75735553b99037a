//! Computes products of random weights on one thread, for programs that count instructions.
//!
//! Usage: `products TYPE TOKENS PRODUCTS [INSTRUCTION_SET]`, for a matrix of 64 rows and 3,072
//! columns. The input is quantised once, by the first product.

use std::error::Error;
use std::hint::black_box;

use infer_kernels::{Activations, Pool, QuantizedMatrix, WeightType, Write, set_instruction_set};

const ROWS: usize = 64;
const COLUMNS: usize = 3072;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [ty, tokens, products, set @ ..] = &arguments[..] else {
        return Err("arguments: expected TYPE TOKENS PRODUCTS [INSTRUCTION_SET]".into());
    };
    let found = WeightType::ALL.into_iter().find(|known| known.to_string() == *ty);
    let ty = found.ok_or_else(|| format!("type `{ty}`: expected a weight type, such as Q4_K"))?;
    let (tokens, products): (usize, usize) = (tokens.parse()?, products.parse()?);
    if let [set] = set {
        set_instruction_set(set)?;
    }

    let pool = Pool::new(1)?;
    let bytes = ROWS * ty.row_bytes(COLUMNS).ok_or("no whole blocks")?;
    // Every byte pattern is valid; these give scales of about 0.01.
    let byte = |i: usize| if i % 2 == 1 { 0x21 } else { (i.wrapping_mul(2_654_435_761) >> 7) as u8 };
    let weights: Vec<u8> = (0..bytes).map(byte).collect();
    let matrix = QuantizedMatrix::pack(&pool, ty, &weights, ROWS, COLUMNS)?;
    let values: Vec<f32> = (0..tokens * COLUMNS).map(|i| (i * 37 % 201) as f32 / 100.0 - 1.0).collect();
    let mut input = Activations::new();
    input.set(&pool, &values, tokens, COLUMNS);
    let mut out = vec![0.0; tokens * ROWS];
    for _ in 0..products {
        matrix.matmul(&pool, &mut input, black_box(&mut out), ROWS, Write::Set);
    }
    Ok(())
}
