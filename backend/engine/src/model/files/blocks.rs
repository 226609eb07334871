//! Numbers as GGUF files hold them: plain, or in blocks that share a scale (the formats of ggml). Everything becomes f32.

use anyhow::{Result, bail, ensure};
use half::{bf16, f16};

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

impl std::str::FromStr for Storage {
    type Err = String;
    /// One that can be written, by its name in lower case.
    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0];
        known
            .into_iter()
            .find(|s| s.name().to_lowercase() == text)
            .ok_or(format!("is \"{text}\"; allowed are f32, f16, bf16, q8_0"))
    }
}

/// Numbers in a block of the K formats.
const K: usize = 256;

impl Storage {
    /// Every storage with its number in GGUF, its name, the numbers in a block and the bytes of one.
    const ALL: [(Self, u32, &'static str, usize, usize); 9] = [
        (Self::F32, 0, "F32", 1, 4),
        (Self::F16, 1, "F16", 1, 2),
        (Self::Q4_0, 2, "Q4_0", 32, 18),
        (Self::Q4_1, 3, "Q4_1", 32, 20),
        (Self::Q8_0, 8, "Q8_0", 32, 34),
        (Self::Q4K, 12, "Q4_K", K, 144),
        (Self::Q5K, 13, "Q5_K", K, 176),
        (Self::Q6K, 14, "Q6_K", K, 210),
        (Self::Bf16, 30, "BF16", 1, 2),
    ];

    fn row(self) -> (Self, u32, &'static str, usize, usize) {
        Self::ALL.into_iter().find(|row| row.0 == self).expect("every storage has a row")
    }

    /// The storage with this number in GGUF.
    ///
    /// # Errors
    /// When it is another one; the message names those that can be read.
    pub fn of_gguf(number: u32) -> Result<Self> {
        match Self::ALL.into_iter().find(|row| row.1 == number) {
            Some(row) => Ok(row.0),
            None => {
                let known: Vec<&str> = Self::ALL.iter().map(|row| row.2).collect();
                bail!("is stored as type {number}; types that can be read are {}", known.join(", "))
            }
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Bytes of `n` numbers; `None` where they do not fill blocks, or are too many.
    pub fn bytes(self, n: usize) -> Option<usize> {
        let (_, _, _, block, size) = self.row();
        n.is_multiple_of(block).then(|| (n / block).checked_mul(size)).flatten()
    }

    /// Numbers in a block.
    pub fn block(self) -> usize {
        self.row().3
    }

    /// Its number in GGUF.
    pub fn gguf(self) -> u32 {
        self.row().1
    }

    /// `values` as bytes.
    ///
    /// # Errors
    /// When they do not fill blocks, or the storage is one that is only read.
    pub fn write(self, values: &[f32]) -> Result<Vec<u8>> {
        ensure!(values.len().is_multiple_of(self.block()), "{} numbers do not fill blocks of {}", values.len(), self.name());
        Ok(match self {
            Self::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            Self::Q8_0 => values.chunks(self.block()).flat_map(q8_0).collect(),
            other => bail!("{} is only read; F32, F16, BF16 and Q8_0 can be written", other.name()),
        })
    }

    /// The numbers in `bytes`.
    ///
    /// # Errors
    /// When the bytes are not those of `n` numbers.
    pub fn read(self, bytes: &[u8], n: usize) -> Result<Vec<f32>> {
        let wanted = self.bytes(n);
        ensure!(wanted == Some(bytes.len()), "{} bytes are not {n} numbers of {}", bytes.len(), self.name());
        let mut out = Vec::with_capacity(n);
        let size = self.row().4;
        for block in bytes.chunks_exact(size) {
            match self {
                Self::F32 => out.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
                Self::F16 => out.push(float(block)),
                Self::Bf16 => out.push(bf16::from_le_bytes([block[0], block[1]]).to_f32()),
                Self::Q4_0 => q4(&block[2..], float(block), -8.0 * float(block), &mut out),
                Self::Q4_1 => q4(&block[4..], float(block), float(&block[2..]), &mut out),
                Self::Q8_0 => {
                    let d = float(block);
                    out.extend(block[2..].iter().map(|&q| d * f32::from(q as i8)));
                }
                Self::Q4K => q4k(block, &mut out),
                Self::Q5K => q5k(block, &mut out),
                Self::Q6K => q6k(block, &mut out),
            }
        }
        Ok(out)
    }
}

/// The half-precision number at the beginning of `bytes`.
fn float(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// 32 numbers in 8 bits each, the largest of them 127.
fn q8_0(values: &[f32]) -> Vec<u8> {
    let largest = values.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let scale = f16::from_f32(largest / 127.0);
    let unit = if scale.to_f32() > 0.0 { 1.0 / scale.to_f32() } else { 0.0 };
    let quants = values.iter().map(|v| (v * unit).round().clamp(-127.0, 127.0) as i8 as u8);
    scale.to_le_bytes().into_iter().chain(quants).collect()
}

/// 32 numbers of 4 bits: low halves first, then high ones.
fn q4(quants: &[u8], scale: f32, base: f32, out: &mut Vec<f32>) {
    out.extend(quants.iter().map(|q| f32::from(q & 15) * scale + base));
    out.extend(quants.iter().map(|q| f32::from(q >> 4) * scale + base));
}

/// Scale and minimum of the `j`th group of 32, six bits each, of eight in twelve bytes.
fn scale_and_minimum(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, minimum) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        ((packed[j + 4] & 15) | ((packed[j - 4] >> 6) << 4), (packed[j + 4] >> 4) | ((packed[j] >> 6) << 4))
    };
    (f32::from(scale), f32::from(minimum))
}

fn q4k(block: &[u8], out: &mut Vec<f32>) {
    let (d, least) = (float(block), float(&block[2..]));
    let (scales, quants) = (&block[4..16], &block[16..]);
    for (pair, quants) in quants.chunks_exact(32).enumerate() {
        for (half, shift) in [0, 4].into_iter().enumerate() {
            let (scale, minimum) = scale_and_minimum(scales, 2 * pair + half);
            out.extend(quants.iter().map(|q| d * scale * f32::from((q >> shift) & 15) - least * minimum));
        }
    }
}

fn q5k(block: &[u8], out: &mut Vec<f32>) {
    let (d, least) = (float(block), float(&block[2..]));
    let (scales, high, quants) = (&block[4..16], &block[16..48], &block[48..]);
    for (pair, quants) in quants.chunks_exact(32).enumerate() {
        for (half, shift) in [0, 4].into_iter().enumerate() {
            let group = 2 * pair + half;
            let (scale, minimum) = scale_and_minimum(scales, group);
            let fifth = |h: u8| ((h >> group) & 1) << 4;
            let number = |(q, h): (&u8, &u8)| d * scale * f32::from(((q >> shift) & 15) | fifth(*h)) - least * minimum;
            out.extend(quants.iter().zip(high).map(number));
        }
    }
}

fn q6k(block: &[u8], out: &mut Vec<f32>) {
    let (low, high, scales, d) = (&block[..128], &block[128..192], &block[192..208], float(&block[208..]));
    for part in 0..2 {
        let (low, high, scales) = (&low[64 * part..], &high[32 * part..], &scales[8 * part..]);
        for quarter in 0..4 {
            out.extend((0..32).map(|l| {
                let four = low[l + 32 * (quarter % 2)] >> (4 * (quarter / 2));
                let two = (high[l] >> (2 * quarter)) & 3;
                let q = i32::from((four & 15) | (two << 4)) - 32;
                d * f32::from(scales[2 * quarter + l / 16] as i8) * q as f32
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of the K formats with bytes that differ, scale 0.5 and least 0.25 where it has them.
    fn block(storage: Storage) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..storage.bytes(K).unwrap()).map(|i| (i * 37 + 11) as u8).collect();
        let (half, quarter) = (f16::from_f32(0.5).to_le_bytes(), f16::from_f32(0.25).to_le_bytes());
        if storage == Storage::Q6K {
            bytes[208..].copy_from_slice(&half);
        } else {
            bytes[..2].copy_from_slice(&half);
            bytes[2..4].copy_from_slice(&quarter);
        }
        bytes
    }

    #[test]
    fn small_blocks_are_scaled_and_shifted() {
        let half = f16::from_f32(0.5).to_le_bytes();
        let quants: Vec<u8> = (0..16).map(|i| i | ((15 - i) << 4)).collect();
        let q4_0 = Storage::Q4_0.read(&[&half[..], &quants].concat(), 32).unwrap();
        assert_eq!((q4_0[0], q4_0[15], q4_0[16], q4_0[31]), (-4.0, 3.5, 3.5, -4.0));
        let q4_1 = Storage::Q4_1.read(&[&half[..], &f16::from_f32(-2.0).to_le_bytes(), &quants].concat(), 32).unwrap();
        assert_eq!((q4_1[0], q4_1[15], q4_1[16], q4_1[31]), (-2.0, 5.5, 5.5, -2.0));
        let signed: Vec<u8> = (0..32).map(|i: i8| (i - 16) as u8).collect();
        let q8_0 = Storage::Q8_0.read(&[&half[..], &signed].concat(), 32).unwrap();
        assert_eq!((q8_0[0], q8_0[31]), (-8.0, 7.5));
        assert_eq!(Storage::Bf16.read(&bf16::from_f32(-1.5).to_le_bytes(), 1).unwrap(), [-1.5]);
        assert_eq!(Storage::F16.read(&f16::from_f32(-1.5).to_le_bytes(), 1).unwrap(), [-1.5]);
    }

    #[test]
    fn large_blocks_equal_numbers_read_one_by_one() {
        // Written index by index, as the format's description has it, where the reader goes group by group.
        for storage in [Storage::Q4K, Storage::Q5K, Storage::Q6K] {
            let bytes = block(storage);
            let got = storage.read(&bytes, K).unwrap();
            for (i, got) in got.iter().enumerate() {
                let want = if storage == Storage::Q6K {
                    let (part, within) = (i / 128, i % 128);
                    let low = bytes[64 * part + within % 64];
                    let four = if within < 64 { low & 15 } else { low >> 4 };
                    let two = (bytes[128 + 32 * part + within % 32] >> (2 * (within / 32))) & 3;
                    let scale = bytes[192 + i / 16] as i8;
                    0.5 * f32::from(scale) * (f32::from(four) + 16.0 * f32::from(two) - 32.0)
                } else {
                    let (group, at) = (i / 32, i % 32);
                    let s = &bytes[4..16];
                    let bits = |byte: usize, from: u32, n: u32| u32::from(s[byte] >> from) & ((1 << n) - 1);
                    let (scale, least) = match group {
                        0..4 => (bits(group, 0, 6), bits(group + 4, 0, 6)),
                        _ => (bits(group + 4, 0, 4) + 16 * bits(group - 4, 6, 2), bits(group + 4, 4, 4) + 16 * bits(group, 6, 2)),
                    };
                    let quants = if storage == Storage::Q4K { 16 } else { 48 };
                    let byte = bytes[quants + 32 * (group / 2) + at];
                    let mut q = if group % 2 == 0 { byte & 15 } else { byte >> 4 };
                    if storage == Storage::Q5K {
                        q += 16 * ((bytes[16 + at] >> group) & 1);
                    }
                    0.5 * scale as f32 * f32::from(q) - 0.25 * least as f32
                };
                assert!((got - want).abs() < 1e-4, "{storage:?} {i}: {got} is not {want}");
            }
        }
    }

    #[test]
    fn blocks_are_read_as_the_formats_own_library_reads_them() {
        let text = include_str!("../../../../../tests/fixtures/models/blocks.json");
        let blocks: std::collections::BTreeMap<String, serde_json::Value> = serde_json::from_str(text).unwrap();
        assert_eq!(blocks.len(), 6);
        for (name, block) in blocks {
            let storage = Storage::ALL.into_iter().find(|row| row.2 == name).unwrap().0;
            let bytes: Vec<u8> = serde_json::from_value(block["bytes"].clone()).unwrap();
            let values: Vec<f32> = serde_json::from_value(block["values"].clone()).unwrap();
            for (i, (got, want)) in storage.read(&bytes, K).unwrap().iter().zip(&values).enumerate() {
                assert!((got - want).abs() < 1e-6, "{name} {i}: {got} is not {want}");
            }
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let values: Vec<f32> = (0..64).map(|i| ((i * 29) % 64) as f32 * 0.37 - 9.0).collect();
        for (storage, most) in [(Storage::F32, 0.0), (Storage::F16, 0.005), (Storage::Bf16, 0.04), (Storage::Q8_0, 0.06)] {
            let read = storage.read(&storage.write(&values).unwrap(), 64).unwrap();
            let apart = read.iter().zip(&values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart <= most && (most == 0.0 || apart > most / 10.0), "{storage:?}: {apart}");
        }
        assert_eq!(Storage::Q8_0.read(&Storage::Q8_0.write(&[0.0; 32]).unwrap(), 32).unwrap(), [0.0; 32]);
        assert!(Storage::Q8_0.write(&values[..33]).is_err() && Storage::Q4K.write(&[0.0; K]).is_err());
    }

    #[test]
    fn bytes_that_are_no_blocks_are_refused() {
        assert_eq!((Storage::Q4_0.bytes(33), Storage::Q4K.bytes(512), Storage::F32.bytes(usize::MAX)), (None, Some(288), None));
        assert!(Storage::Q8_0.read(&[0; 33], 32).is_err());
        let error = Storage::of_gguf(6).unwrap_err().to_string();
        assert!(error.contains("type 6") && error.contains("Q4_K"), "{error}");
    }
}
