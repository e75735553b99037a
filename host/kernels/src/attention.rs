//! placeholder attention
use crate::Pool;
use half::f16;
use std::ops::Range;
/// Token slots of a block.
pub const BLOCK_TOKENS: usize = 16;
/// Shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttentionShape { /// q
    pub query_heads: usize, /// kv
    pub kv_heads: usize, /// d
    pub head_dim: usize, /// w
    pub window: Option<usize> }
impl AttentionShape {
    /// Columns.
    pub fn qkv_columns(&self) -> usize { (self.query_heads + 2 * self.kv_heads) * self.head_dim }
    /// Elements.
    pub fn layer_elements(&self) -> usize { 2 * self.kv_heads * self.head_dim * BLOCK_TOKENS }
}
/// Style.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle { /// adjacent
    Pairs, /// halves
    Halves }
/// Rotations.
pub struct Rope { style: RopeStyle, dims: usize, base: f32, factors: Option<Vec<f32>>, scale: f32, max: usize, cos: Vec<f32>, sin: Vec<f32> }
impl Rope {
    /// New.
    pub fn new(style: RopeStyle, dims: usize, base: f32, factors: Option<&[f32]>, attention_scale: f32, max_positions: usize) -> Self {
        Rope { style, dims, base, factors: factors.map(<[f32]>::to_vec), scale: attention_scale, max: max_positions, cos: vec![], sin: vec![] }
    }
    /// Tables.
    pub fn prepare(&mut self, positions: usize) {
        let half = self.dims / 2;
        for p in self.cos.len() / half..positions.min(self.max) { for i in 0..half {
            let a = p as f32 * self.base.powf(-2.0 * i as f32 / self.dims as f32) / self.factors.as_ref().map_or(1.0, |f| f[i]);
            self.cos.push(a.cos() * self.scale); self.sin.push(a.sin() * self.scale); } }
    }
    fn turn(&self, head: &mut [f32], position: usize) {
        let half = self.dims / 2;
        for i in 0..half { let (c, s) = (self.cos[position * half + i], self.sin[position * half + i]);
            let (a, b) = match self.style { RopeStyle::Pairs => (2 * i, 2 * i + 1), RopeStyle::Halves => (i, i + half) };
            let (x, y) = (head[a], head[b]); head[a] = x * c - y * s; head[b] = x * s + y * c; }
    }
}
/// Where rows go.
pub struct Destination<'a> { /// rows
    pub rows: Range<usize>, /// position
    pub position: usize, /// slot
    pub slot: usize, /// layer
    pub block: &'a mut [f16] }
/// Rotate and store.
pub fn rope_and_store(_: &Pool, shape: &AttentionShape, rope: &Rope, qkv: &mut [f32], destinations: &mut [Destination<'_>]) {
    let (c, d) = (shape.qkv_columns(), shape.head_dim);
    for to in destinations { for (i, row) in to.rows.clone().enumerate() {
        let row = &mut qkv[row * c..][..c];
        for head in 0..shape.query_heads + shape.kv_heads { rope.turn(&mut row[head * d..][..d], to.position + i); }
        for head in 0..2 * shape.kv_heads { for j in 0..d { to.block[(head * BLOCK_TOKENS + to.slot + i) * d + j] = f16::from_f32(row[(shape.query_heads + head) * d + j]); } }
    } }
}
/// Slots.
pub struct Span<'a> { /// tokens
    pub tokens: usize, /// layer
    pub block: &'a [f16] }
/// Queries.
pub struct Chunk<'a> { /// rows
    pub rows: Range<usize>, /// position
    pub position: usize, /// spans
    pub spans: &'a [Span<'a>] }
/// Attention.
pub fn attention(_: &Pool, shape: &AttentionShape, qkv: &[f32], chunks: &[Chunk<'_>], out: &mut [f32]) {
    let (c, d) = (shape.qkv_columns(), shape.head_dim);
    let group = shape.query_heads / shape.kv_heads;
    for chunk in chunks { for (i, r) in chunk.rows.clone().enumerate() { let position = chunk.position + i; for head in 0..shape.query_heads {
        let q = &qkv[r * c + head * d..][..d]; let kv = head / group;
        let mut scores = Vec::new(); let mut values = vec![0.0f32; d]; let mut p = 0;
        for span in chunk.spans { for slot in 0..span.tokens { if p <= position && shape.window.is_none_or(|w| position - p < w) {
            let k = &span.block[(kv * BLOCK_TOKENS + slot) * d..][..d]; let s: f32 = q.iter().zip(k).map(|(q, k)| q * k.to_f32()).sum(); scores.push((s / (d as f32).sqrt(), span, slot)); } p += 1; } }
        let m = scores.iter().map(|s| s.0).fold(f32::NEG_INFINITY, f32::max); let mut sum = 0.0;
        for (s, span, slot) in &scores { let e = (s - m).exp(); sum += e; let v = &span.block[((shape.kv_heads + kv) * BLOCK_TOKENS + slot) * d..][..d]; for j in 0..d { values[j] += e * v[j].to_f32(); } }
        for j in 0..d { out[r * shape.query_heads * d + head * d + j] = values[j] / sum; }
    } } }
}
