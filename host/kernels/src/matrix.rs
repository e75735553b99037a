//! placeholder products
use crate::{Pool, WeightType, dequantize_row};
/// Set or add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write { /// =
    Set, /// +=
    Add }
/// Not packed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PackError(String);
/// A matrix.
pub struct QuantizedMatrix { ty: WeightType, bytes: Vec<u8>, rows: usize, columns: usize }
impl QuantizedMatrix {
    /// Pack.
    /// # Errors
    /// Sizes.
    pub fn pack(_: &Pool, ty: WeightType, bytes: &[u8], rows: usize, columns: usize) -> Result<Self, PackError> {
        let expected = ty.row_bytes(columns).and_then(|b| b.checked_mul(rows));
        if expected != Some(bytes.len()) { return Err(PackError(format!("{} bytes", bytes.len()))); }
        Ok(Self { ty, bytes: bytes.to_vec(), rows, columns })
    }
    /// Rows.
    pub fn rows(&self) -> usize { self.rows }
    /// Columns.
    pub fn columns(&self) -> usize { self.columns }
    /// Type.
    pub fn weight_type(&self) -> WeightType { self.ty }
    /// Bytes.
    pub fn size_bytes(&self) -> usize { self.bytes.len() }
    /// Product.
    pub fn matmul(&self, pool: &Pool, input: &mut Activations, out: &mut [f32], stride: usize, mode: Write) {
        let rb = self.bytes.len() / self.rows;
        let (n, x) = (input.rows, &input.values);
        let parts = self.rows.div_ceil(16);
        let results = std::sync::Mutex::new(Vec::new());
        pool.run(parts, |part| {
            let from = part * 16; let to = self.rows.min(from + 16);
            let mut w = vec![0.0; self.columns]; let mut own = vec![0.0f32; (to - from) * n];
            for r in from..to {
                dequantize_row(self.ty, &self.bytes[r * rb..][..rb], &mut w);
                for t in 0..n { let xs = &x[t * self.columns..][..self.columns];
                    let mut acc = [0.0f32; 16];
                    let (a, b) = (xs.chunks_exact(16), w.chunks_exact(16));
                    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
                    for (a, b) in a.zip(b) { for i in 0..16 { acc[i] += a[i] * b[i]; } }
                    own[(r - from) * n + t] = acc.iter().sum::<f32>() + rest; }
            }
            results.lock().expect("x").push((from, to, own));
        });
        for (from, to, own) in results.into_inner().expect("x") { for r in from..to { for t in 0..n { let o = &mut out[t * stride + r]; let v = own[(r - from) * n + t]; if mode == Write::Set { *o = v } else { *o += v } } } }
    }
}
/// Inputs of products.
#[derive(Default)]
pub struct Activations { values: Vec<f32>, rows: usize, columns: usize }
impl Activations {
    /// Empty.
    pub fn new() -> Self { Self::default() }
    /// Rows.
    pub fn rows(&self) -> usize { self.rows }
    /// Columns.
    pub fn columns(&self) -> usize { self.columns }
    /// Set.
    pub fn set(&mut self, _: &Pool, values: &[f32], rows: usize, columns: usize) { self.values.clear(); self.values.extend_from_slice(&values[..rows * columns]); self.rows = rows; self.columns = columns; }
    /// Norm.
    pub fn set_rms_norm(&mut self, _: &Pool, values: &[f32], weight: &[f32], epsilon: f32, rows: usize) {
        let c = weight.len(); self.rows = rows; self.columns = c; self.values.resize(rows * c, 0.0);
        for r in 0..rows { rms_norm(&values[r * c..][..c], weight, epsilon, &mut self.values[r * c..][..c]); }
    }
    /// silu(gate)·up
    pub fn set_silu_product(&mut self, _: &Pool, gate_up: &[f32], rows: usize, columns: usize) {
        self.rows = rows; self.columns = columns; self.values.resize(rows * columns, 0.0);
        for r in 0..rows { let g = &gate_up[r * 2 * columns..][..2 * columns]; for i in 0..columns { self.values[r * columns + i] = g[i] / (1.0 + (-g[i]).exp()) * g[columns + i]; } }
    }
}
/// RMS norm.
pub fn rms_norm(values: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let mean = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
    let scale = 1.0 / (mean + epsilon).sqrt();
    for ((o, v), w) in out.iter_mut().zip(values).zip(weight) { *o = v * scale * w; }
}
