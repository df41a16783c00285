//! A piece of a body that lies in several places, so that nobody has to put it together: what writes it takes them all at once.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

#[derive(Debug, Default)]
pub(super) struct Piece {
    /// None of them is empty.
    parts: VecDeque<Bytes>,
    size: usize,
}

impl Piece {
    pub(super) fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.size += part.len();
            self.parts.push_back(part);
        }
    }
}

impl From<Bytes> for Piece {
    fn from(part: Bytes) -> Self {
        let mut piece = Self::default();
        piece.push(part);
        piece
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.size
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let places = out.iter_mut().zip(&self.parts);
        places
            .map(|(place, part)| *place = IoSlice::new(part))
            .count()
    }

    fn advance(&mut self, mut count: usize) {
        self.size -= count;
        while let Some(part) = self.parts.front_mut() {
            if count < part.len() {
                part.advance(count);
                return;
            }
            count -= part.len();
            self.parts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_as_one_whichever_way() {
        let whole = || {
            let mut piece = Piece::default();
            for part in ["", "ab", "c", "", "defg"] {
                piece.push(Bytes::from_static(part.as_bytes()));
            }
            piece
        };
        assert_eq!(whole().copy_to_bytes(7), "abcdefg");
        for taken in 0..=7 {
            let mut piece = whole();
            piece.advance(taken);
            assert_eq!(piece.remaining(), 7 - taken);
            let mut slices = [IoSlice::new(&[]); 2];
            let count = piece.chunks_vectored(&mut slices);
            let seen: Vec<u8> = slices
                .iter()
                .take(count)
                .flat_map(|one| one.to_vec())
                .collect();
            assert!(
                "abcdefg"
                    .as_bytes()
                    .get(taken..)
                    .unwrap()
                    .starts_with(&seen)
            );
            assert_eq!(count == 0, taken == 7);
        }
    }
}
