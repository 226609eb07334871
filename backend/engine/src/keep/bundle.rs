//! One file that holds a header and parts: a line of JSON, then the parts' bytes. A checksum covers all of it.

pub use crate::sums::sha256;
use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Envelope {
    /// Over the header's text and all parts.
    checksum: String,
    /// Bytes of each part.
    sizes: Vec<usize>,
    /// The header as JSON text: as text its checksum is that of the very bytes.
    header: String,
}

/// Packs `header` and `parts`.
///
/// # Errors
/// When the header is no JSON.
pub fn pack(header: &impl Serialize, parts: &[&[u8]]) -> Result<Vec<u8>> {
    let header = serde_json::to_string(header)?;
    let all: Vec<&[u8]> = std::iter::once(header.as_bytes()).chain(parts.iter().copied()).collect();
    let envelope = Envelope { checksum: sha256(&all), sizes: parts.iter().map(|p| p.len()).collect(), header };
    let mut bytes = serde_json::to_vec(&envelope)?;
    bytes.push(b'\n');
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    Ok(bytes)
}

/// Header and parts of what [`pack`] made.
///
/// # Errors
/// When a byte of it is missing or has changed, or the header is another one's.
pub fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Vec<Vec<u8>>)> {
    let end = bytes.iter().position(|&b| b == b'\n').context("it has no header")?;
    let envelope: Envelope = serde_json::from_slice(&bytes[..end]).context("its header")?;
    let mut rest = &bytes[end + 1..];
    let size = envelope.sizes.iter().try_fold(0usize, |sum, &n| sum.checked_add(n)).context("its sizes")?;
    if rest.len() != size {
        bail!("it is {} bytes long after the header and should be {size}", rest.len());
    }
    let mut parts: Vec<&[u8]> = vec![envelope.header.as_bytes()];
    for &size in &envelope.sizes {
        let (part, tail) = rest.split_at(size);
        parts.push(part);
        rest = tail;
    }
    if sha256(&parts) != envelope.checksum {
        bail!("it does not match its checksum");
    }
    let header = serde_json::from_str(&envelope.header).context("its header")?;
    Ok((header, parts[1..].iter().map(|p| p.to_vec()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = pack(&("step", 80), &[b"weights", b"", b"moments"]).unwrap();
        let (header, parts): ((String, u32), _) = unpack(&bytes).unwrap();
        assert_eq!((header.1, parts), (80, vec![b"weights".to_vec(), vec![], b"moments".to_vec()]));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let read = unpack::<(String, u32)>(&damaged);
                assert!(read.is_err() || read.is_ok_and(|r| r.0 == header), "byte {at}, bit {bit}");
            }
            assert!(unpack::<(String, u32)>(&bytes[..at]).is_err());
        }
    }
}
