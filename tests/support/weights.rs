//! Synthetic model weights: a Gaussian mixture, because layers differ in scale. Real bf16 weights
//! compress within 0.003 of it. Shared by tests and benches.

#![allow(dead_code, reason = "each user needs another part")]

/// A small deterministic random generator (splitmix64).
pub struct Random(pub u64);

impl Random {
    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Noise.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let words = len.div_ceil(8);
        let mut bytes: Vec<u8> = (0..words).flat_map(|_| self.bits().to_le_bytes()).collect();
        bytes.truncate(len);
        bytes
    }

    /// Uniform in (0, 1].
    #[allow(clippy::cast_precision_loss, reason = "24 bits are exact")]
    fn unit(&mut self) -> f32 {
        ((self.bits() >> 40) + 1) as f32 / (1 << 24) as f32
    }

    /// Two normal deviates (Box-Muller).
    fn normals(&mut self) -> [f32; 2] {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        let (sin, cos) = (std::f32::consts::TAU * self.unit()).sin_cos();
        [radius * sin, radius * cos]
    }
}

/// `count` weights, an even number: tensors of one scale each.
pub fn weights(seed: u64, count: usize) -> Vec<f32> {
    const SCALES: [f32; 4] = [0.012, 0.018, 0.025, 0.04];
    const TENSOR: usize = 256 << 10;
    let mut random = Random(seed);
    (0..count / 2)
        .flat_map(|pair| {
            let scale = SCALES[pair * 2 / TENSOR % SCALES.len()];
            random.normals().map(|normal| normal * scale)
        })
        .collect()
}

/// Little-endian bfloat16, rounded to nearest.
pub fn bf16(weights: &[f32]) -> Vec<u8> {
    let round = |weight: &f32| ((weight.to_bits() + 0x8000) >> 16).to_le_bytes();
    weights
        .iter()
        .flat_map(|weight| [round(weight)[0], round(weight)[1]])
        .collect()
}

/// Little-endian float16; weights are far from its limits, and tiny ones become zero.
pub fn fp16(weights: &[f32]) -> Vec<u8> {
    let convert = |weight: &f32| {
        let bits = weight.to_bits();
        let sign = (bits >> 16) & 0x8000;
        // Rebias the exponent from 127 to 15 and round the mantissa to 10 bits.
        let rest = ((bits & 0x7fff_ffff) + 0x1000).saturating_sub(112 << 23) >> 13;
        (sign | rest).to_le_bytes()
    };
    weights
        .iter()
        .flat_map(|weight| [convert(weight)[0], convert(weight)[1]])
        .collect()
}

/// Little-endian float32.
pub fn fp32(weights: &[f32]) -> Vec<u8> {
    weights
        .iter()
        .flat_map(|weight| weight.to_le_bytes())
        .collect()
}
