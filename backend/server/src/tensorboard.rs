//! A run's curves as TensorBoard reads them: records of TensorFlow's event files, each with its length and two checksums.
//!
//! A record is `length: u64, mask(crc(length)): u32, data, mask(crc(data)): u32`, all little endian, with CRC-32C. `data` is a protocol
//! buffer `Event { wall_time: double = 1, step: int64 = 2, file_version: string = 3, summary: Summary = 5 }`, and a summary of one
//! figure is `Value { tag: string = 1, simple_value: float = 2 }` within field 1.

use crate::curves::Scalar;
use crc::{CRC_32_ISCSI, Crc};

/// An event file with these figures.
pub fn file(scalars: &[Scalar]) -> Vec<u8> {
    let seconds = |time: u64| time as f64 / 1000.0;
    let mut out = Vec::new();
    let mut first = double(1, scalars.first().map_or(0.0, |s| seconds(s.time)));
    first.extend(bytes(3, b"brain.Event:2"));
    record(&mut out, &first);
    for scalar in scalars {
        let mut value = bytes(1, scalar.tag().as_bytes());
        value.push(2 << 3 | 5);
        value.extend((scalar.value as f32).to_le_bytes());
        let mut event = double(1, seconds(scalar.time));
        event.push(2 << 3);
        event.extend(varint(scalar.step as u64));
        event.extend(bytes(5, &bytes(1, &value)));
        record(&mut out, &event);
    }
    out
}

fn record(out: &mut Vec<u8>, data: &[u8]) {
    let length = (data.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(checksum(&length).to_le_bytes());
    out.extend(data);
    out.extend(checksum(data).to_le_bytes());
}

/// CRC-32C, turned and moved, so that a checksum of data with checksums in it is still one.
fn checksum(data: &[u8]) -> u32 {
    Crc::<u32>::new(&CRC_32_ISCSI).checksum(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number > 127 {
        out.push(number as u8 & 127 | 128);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

fn bytes(field: u8, data: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    out.extend(varint(data.len() as u64));
    out.extend(data);
    out
}

fn double(field: u8, value: f64) -> Vec<u8> {
    let mut out = vec![field << 3 | 1];
    out.extend(value.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::event::Stage;

    #[test]
    fn checksums_and_numbers_are_those_of_the_format() {
        // CRC-32C of "123456789" is 0xe3069283.
        assert_eq!(checksum(b"123456789"), 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8));
        assert_eq!(varint(300), [0xac, 0x02]);
        assert_eq!(varint(127), [0x7f]);
        let scalar = Scalar { stage: Stage::Sft, part: None, name: "a".into(), step: 300, time: 1500, value: 0.5 };
        let written = file(&[scalar]);
        let at = 12 + u64::from_le_bytes(written[..8].try_into().unwrap()) as usize + 4;
        let mut event = vec![9];
        event.extend(1.5_f64.to_le_bytes());
        event.extend([16, 0xac, 0x02, 42, 14, 10, 12, 10, 5]);
        event.extend(b"sft/a");
        event.extend([21, 0, 0, 0, 0x3f]);
        assert_eq!(written[at + 12..written.len() - 4], event);
        assert_eq!(written[at..at + 8], (event.len() as u64).to_le_bytes());
    }
}
