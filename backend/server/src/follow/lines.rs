//! Lines of a journal, read in little memory whatever somebody has written there.

use std::io::{BufRead, Result};

/// Bytes of a journal that are read at once.
const PIECE: u64 = 4 << 20;
/// Longest line that is read: what a run says is a hundred times shorter. Of a longer one it is known that it is there. Every thread
/// that reads may hold one.
const LONGEST_LINE: u64 = 4 << 20;

/// Appends the next whole line to `text`, as far as it is no longer than a line may be. Returns its length; `None` where no whole line
/// is left.
pub fn next_line(reader: &mut impl BufRead, text: &mut Vec<u8>) -> Result<Option<u64>> {
    let (began, mut length) = (text.len(), 0);
    loop {
        let piece = reader.fill_buf()?;
        if piece.is_empty() {
            return Ok(None);
        }
        let end = piece.iter().position(|&b| b == b'\n');
        let taken = end.map_or(piece.len(), |end| end + 1);
        let room = LONGEST_LINE as usize - (text.len() - began).min(LONGEST_LINE as usize);
        text.extend_from_slice(&piece[..taken.min(room)]);
        length += taken as u64;
        reader.consume(taken);
        if end.is_some() {
            if text.last() != Some(&b'\n') {
                text.push(b'\n');
            }
            return Ok(Some(length));
        }
    }
}

/// Reads whole lines, about [`PIECE`] bytes of them. Returns how many bytes the last one has more than were kept of it.
pub fn read_piece(reader: &mut impl BufRead, text: &mut Vec<u8>) -> Result<u64> {
    loop {
        let began = text.len();
        let Some(length) = next_line(reader, text)? else {
            text.truncate(began);
            return Ok(0);
        };
        let cut = length.saturating_sub((text.len() - began) as u64);
        if cut > 0 || text.len() as u64 >= PIECE {
            return Ok(cut);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, Read, repeat};

    #[test]
    fn lines_are_read_whole_and_what_has_no_end_waits() {
        let (mut reader, mut text) = (BufReader::with_capacity(3, &b"one\n\nthree\nfo"[..]), Vec::new());
        assert_eq!([4, 1, 6].map(Some), [(); 3].map(|()| next_line(&mut reader, &mut text).unwrap()));
        assert_eq!(next_line(&mut reader, &mut text).unwrap(), None);
        assert_eq!(text, b"one\n\nthree\nfo");
        let mut text = Vec::new();
        assert_eq!(read_piece(&mut &b"one\ntwo\nthr"[..], &mut text).unwrap(), 0);
        assert_eq!(text, b"one\ntwo\n");
    }

    #[test]
    fn a_line_beyond_all_measure_is_passed_over_in_bounded_memory() {
        let long = 3 * LONGEST_LINE;
        let file = || b"a\n".chain(repeat(b'x').take(long)).chain(&b"\nb\n"[..]);
        let (mut reader, mut text) = (BufReader::new(file()), Vec::new());
        let cut = read_piece(&mut reader, &mut text).unwrap();
        assert_eq!((text.len() as u64, cut), (2 + LONGEST_LINE + 1, long - LONGEST_LINE));
        assert_eq!(text.iter().filter(|&&b| b == b'\n').count(), 2);
        // It goes on behind it.
        let mut rest = Vec::new();
        assert_eq!((read_piece(&mut reader, &mut rest).unwrap(), rest), (0, b"b\n".to_vec()));
        // A piece is no larger than it has to be.
        let lines = "0123456789\n".repeat(PIECE as usize / 11 * 3);
        let mut text = Vec::new();
        read_piece(&mut lines.as_bytes(), &mut text).unwrap();
        assert!((PIECE..PIECE + 11).contains(&(text.len() as u64)));
    }
}
