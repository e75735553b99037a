//! Products of one layer of Qwen2.5-0.5B and of Phi-3 Mini by type and number of tokens, and attention: for comparing two commits. The
//! example `products` says how far a product is from what the machine can do.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use infer_kernels::{
    Activations, AttentionShape, BLOCK_TOKENS, Chunk, Pool, QuantizedMatrix, Span, WeightType, Write,
    attention,
};

fn pool() -> Pool {
    Pool::new(std::thread::available_parallelism().map_or(1, usize::from)).expect("threads")
}

fn products(criterion: &mut Criterion) {
    let pool = pool();
    let mut group = criterion.benchmark_group("product");
    group.sample_size(10);
    for (shape, rows, columns) in [("qwen2.5-0.5b down", 896, 4864), ("phi-3 output", 3072, 3072)] {
        for ty in WeightType::ALL {
            let bytes = ty.row_bytes(columns).expect("whole blocks") * rows;
            let blocks: Vec<u8> =
                (0..bytes).map(|i| if i % 2 == 1 { 0x21 } else { (i * 31) as u8 }).collect();
            let matrix = QuantizedMatrix::pack(&pool, ty, &blocks, rows, columns).expect("a matrix");
            for tokens in [1, 8, 128] {
                let values: Vec<f32> =
                    (0..tokens * columns).map(|i| (i * 37 % 201) as f32 / 100.0 - 1.0).collect();
                let mut input = Activations::new();
                let mut out = vec![0.0; tokens * rows];
                group.throughput(Throughput::Elements((2 * tokens * rows * columns) as u64));
                group.bench_function(BenchmarkId::new(format!("{shape} {ty}"), tokens), |bencher| {
                    bencher.iter(|| {
                        input.set(&pool, black_box(&values), tokens, columns);
                        matrix.matmul(&pool, &mut input, &mut out, rows, Write::Set);
                    });
                });
            }
        }
    }
}

fn attentions(criterion: &mut Criterion) {
    let pool = pool();
    let mut group = criterion.benchmark_group("attention");
    group.sample_size(10);
    for (name, query_heads, kv_heads, head_dim) in [("phi-3", 32, 32, 96), ("qwen2.5-0.5b", 14, 2, 64)] {
        let shape = AttentionShape { query_heads, kv_heads, head_dim, window: None };
        for (rows, position) in [(128usize, 0usize), (128, 384), (1, 511)] {
            let end = position + rows;
            let blocks = vec![vec![f16::from_f32(0.25); shape.layer_elements()]; end.div_ceil(BLOCK_TOKENS)];
            let spans: Vec<Span<'_>> =
                blocks.iter().map(|block| Span { tokens: BLOCK_TOKENS, block }).collect();
            let qkv: Vec<f32> =
                (0..rows * shape.qkv_columns()).map(|i| (i * 37 % 201) as f32 / 100.0 - 1.0).collect();
            let mut out = vec![0.0; rows * query_heads * head_dim];
            group.bench_function(format!("{name}, {rows} queries after {position}"), |bencher| {
                bencher.iter(|| {
                    let chunk = Chunk { rows: 0..rows, position, spans: &spans };
                    attention(&pool, &shape, black_box(&qkv), &[chunk], &mut out);
                });
            });
        }
    }
}

criterion_group!(kernels, products, attentions);
criterion_main!(kernels);
