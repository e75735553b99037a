//! GGUF's element types.
use half::f16;
/// How a row of weights is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types, reason = "the formats' own names")]
pub enum WeightType { /// f32
    F32, /// f16
    F16, /// q4_0
    Q4_0, /// q4_1
    Q4_1, /// q5_0
    Q5_0, /// q8_0
    Q8_0, /// q4_k
    Q4K, /// q5_k
    Q5K, /// q6_k
    Q6K }
impl std::fmt::Display for WeightType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self { Self::F32 => "F32", Self::F16 => "F16", Self::Q4_0 => "Q4_0", Self::Q4_1 => "Q4_1", Self::Q5_0 => "Q5_0", Self::Q8_0 => "Q8_0", Self::Q4K => "Q4_K", Self::Q5K => "Q5_K", Self::Q6K => "Q6_K" })
    }
}
impl WeightType {
    /// From ggml's number.
    pub fn from_ggml(id: u32) -> Option<Self> {
        Some(match id { 0 => Self::F32, 1 => Self::F16, 2 => Self::Q4_0, 3 => Self::Q4_1, 6 => Self::Q5_0, 8 => Self::Q8_0, 12 => Self::Q4K, 13 => Self::Q5K, 14 => Self::Q6K, _ => return None })
    }
    /// ggml's number.
    pub fn to_ggml(self) -> u32 {
        match self { Self::F32 => 0, Self::F16 => 1, Self::Q4_0 => 2, Self::Q4_1 => 3, Self::Q5_0 => 6, Self::Q8_0 => 8, Self::Q4K => 12, Self::Q5K => 13, Self::Q6K => 14 }
    }
    /// Elements of a block.
    pub fn block_elements(self) -> usize {
        match self { Self::F32 | Self::F16 => 1, Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q8_0 => 32, _ => 256 }
    }
    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self { Self::F32 => 4, Self::F16 => 2, Self::Q4_0 => 18, Self::Q4_1 => 20, Self::Q5_0 => 22, Self::Q8_0 => 34, Self::Q4K => 144, Self::Q5K => 176, Self::Q6K => 210 }
    }
    /// Bytes of a row.
    pub fn row_bytes(self, columns: usize) -> Option<usize> {
        if !columns.is_multiple_of(self.block_elements()) { return None; }
        (columns / self.block_elements()).checked_mul(self.block_bytes())
    }
}
fn h(b: &[u8]) -> f32 { f16::from_le_bytes([b[0], b[1]]).to_f32() }
fn scale_min(j: usize, s: &[u8]) -> (f32, f32) {
    let (a, b) = if j < 4 { (s[j] & 63, s[j + 4] & 63) } else { ((s[j + 4] & 15) | ((s[j - 4] >> 6) << 4), (s[j + 4] >> 4) | ((s[j] >> 6) << 4)) };
    (f32::from(a), f32::from(b))
}
/// Dequantise a row.
pub fn dequantize_row(ty: WeightType, row: &[u8], out: &mut [f32]) {
    let (n, bytes) = (ty.block_elements(), ty.block_bytes());
    for (b, o) in row.chunks_exact(bytes).zip(out.chunks_exact_mut(n)) {
        match ty {
            WeightType::F32 => o[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            WeightType::F16 => o[0] = h(b),
            WeightType::Q4_0 => { let d = h(b); for i in 0..16 { o[i] = d * (f32::from(b[2 + i] & 15) - 8.0); o[i + 16] = d * (f32::from(b[2 + i] >> 4) - 8.0); } }
            WeightType::Q4_1 => { let (d, m) = (h(b), h(&b[2..])); for i in 0..16 { o[i] = d * f32::from(b[4 + i] & 15) + m; o[i + 16] = d * f32::from(b[4 + i] >> 4) + m; } }
            WeightType::Q5_0 => { let d = h(b); let q = u32::from_le_bytes([b[2], b[3], b[4], b[5]]);
                for i in 0..16 { let lo = (b[6 + i] & 15) | (((q >> i) & 1) << 4) as u8; let hi = (b[6 + i] >> 4) | (((q >> (i + 16)) & 1) << 4) as u8; o[i] = d * (f32::from(lo) - 16.0); o[i + 16] = d * (f32::from(hi) - 16.0); } }
            WeightType::Q8_0 => { let d = h(b); for i in 0..32 { o[i] = d * f32::from(b[2 + i] as i8); } }
            WeightType::Q4K | WeightType::Q5K => {
                let (d, m) = (h(b), h(&b[2..])); let five = ty == WeightType::Q5K; let qs = if five { &b[48..176] } else { &b[16..144] };
                for j in 0..8 { let (s, mn) = scale_min(j, &b[4..16]); for l in 0..32 { let q = qs[(j / 2) * 32 + l]; let mut v = if j % 2 == 0 { q & 15 } else { q >> 4 }; if five && (b[16 + l] >> j) & 1 == 1 { v += 16; } o[j * 32 + l] = d * s * f32::from(v) - m * mn; } }
            }
            WeightType::Q6K => { let d = h(&b[208..]);
                for n in 0..2 { let (ql, qh, sc) = (&b[n * 64..], &b[128 + n * 32..], &b[192 + n * 8..]);
                    for l in 0..32 { let is = l / 16; let v = [(ql[l] & 15) | ((qh[l] & 3) << 4), (ql[l + 32] & 15) | (((qh[l] >> 2) & 3) << 4), (ql[l] >> 4) | (((qh[l] >> 4) & 3) << 4), (ql[l + 32] >> 4) | ((qh[l] >> 6) << 4)];
                        for (k, v) in v.into_iter().enumerate() { o[n * 128 + k * 32 + l] = d * f32::from(sc[is + 2 * k] as i8) * (f32::from(v) - 32.0); } } } }
        }
    }
}
