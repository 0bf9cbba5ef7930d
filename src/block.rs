//! Memory that the small pieces of all streams of a thread share: a stream that waits holds no room
//! for what may come. Imports nothing of ours.
//!
//! A block is cut into pieces, and is used again when nobody refers to any of them. So a piece must
//! soon be let go of, or be copied (`frame::Room`): it keeps its whole block.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};

/// Of a block; what is larger gets memory of its own.
pub const BLOCK_BYTES: usize = 4096;

/// What is left of a thread's block. What is read and what is written have one each, for the one
/// lasts until the other is made of it.
pub struct Block(Cell<BytesMut>);

thread_local! {
    pub static READ: Block = Block(Cell::new(BytesMut::new()));
    pub static WRITTEN: Block = Block(Cell::new(BytesMut::new()));
}

impl Block {
    /// An empty buffer with room for `room` bytes at least. Becomes a piece with
    /// [`Block::cut_off`], before anything is waited for.
    pub fn begin(&self, room: usize) -> BytesMut {
        if room > BLOCK_BYTES {
            return BytesMut::with_capacity(room);
        }
        let mut piece = self.0.take();
        if piece.capacity() < room {
            piece.reserve(BLOCK_BYTES);
        }
        piece
    }

    /// Makes room for `room` more bytes in `piece`, which may be none yet.
    pub fn make_room(&self, piece: &mut BytesMut, room: usize) {
        if piece.capacity() - piece.len() < room {
            match piece.is_empty() {
                true => *piece = self.begin(room),
                false => piece.reserve(room.max(piece.len())),
            }
        }
    }

    /// What `piece` holds; the rest of its block is left for the next.
    pub fn cut_off(&self, mut piece: BytesMut) -> Bytes {
        let taken = piece.split().freeze();
        if piece.capacity() + taken.len() <= BLOCK_BYTES {
            self.0.set(piece);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_share_a_block_that_is_used_again() {
        let block = Block(Cell::new(BytesMut::new()));
        let write = |text: &[u8]| {
            let mut piece = block.begin(text.len());
            piece.extend_from_slice(text);
            block.cut_off(piece)
        };
        let (one, two) = (write(b"one"), write(b"two"));
        assert_eq!(one.as_ptr().wrapping_add(3), two.as_ptr());
        let first = one.as_ptr();
        drop((one, two));
        assert_eq!(write(&[b'a'; 4000]).len(), 4000);
        // Nothing else refers to it: it starts over.
        assert_eq!(write(&[b'b'; 4000]).as_ptr(), first);
        let large = write(&[b'c'; 5000]);
        assert_eq!(large.len(), 5000);
        assert_eq!(write(&[b'd'; 4000]).as_ptr(), first);
    }
}
