//! The memory of what is kept of many small pieces.

use bytes::{Bytes, BytesMut};

/// Bytes that pieces share: at first, and later, so that a short answer is not given the room of a
/// long one.
const LEAST: usize = 256;
const MOST: usize = 1024;

/// Where small pieces that are kept move to, so that they no longer keep the memory that they were
/// read into, which may be much more and other streams' as well.
#[derive(Default)]
pub struct Room {
    rest: BytesMut,
    last: usize,
}

impl Room {
    /// Moves `piece` here when it is small.
    pub fn settle(&mut self, piece: &mut Bytes) {
        if piece.is_empty() || piece.len() > MOST {
            return;
        }
        if self.rest.capacity() < piece.len() {
            self.last = (self.last * 2).clamp(LEAST, MOST).max(piece.len());
            self.rest = BytesMut::with_capacity(self.last);
        }
        self.rest.extend_from_slice(piece);
        *piece = self.rest.split().freeze();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_settled_keeps_only_its_room() {
        let read = Bytes::from(vec![b'a'; 4096]);
        let (mut room, mut kept) = (Room::default(), Vec::new());
        for at in 0..100 {
            let mut piece = read.slice(at..at + 30);
            room.settle(&mut piece);
            assert_eq!(piece, &read[..30]);
            kept.push(piece);
        }
        assert!(read.is_unique());
        let mut large = read.slice(..2000);
        room.settle(&mut large);
        assert!(!read.is_unique());
    }
}
