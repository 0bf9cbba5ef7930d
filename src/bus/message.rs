//! The messages between nodes.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::frame::{self, Frame};

/// What has changed, so that other nodes forget what they remember of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Notice {
    Revoked {
        tokens: Vec<String>,
    },
    /// Virtual keys, with their versions from now on.
    VirtualKeys {
        keys: Vec<(String, i64)>,
    },
    Smith {
        tenant_id: String,
        smith_id: String,
    },
    Smiths,
    McpServer {
        tenant_id: String,
        name: String,
    },
    ModelKeys,
    Budgets,
    /// There is work that any node may take up.
    Work {
        name: String,
    },
}

impl Notice {
    /// Of a smith.
    pub fn smith(tenant_id: &str, smith_id: &str) -> Self {
        Self::Smith {
            tenant_id: tenant_id.to_owned(),
            smith_id: smith_id.to_owned(),
        }
    }

    /// Of an MCP server.
    pub fn mcp_server(tenant_id: &str, name: &str) -> Self {
        Self::McpServer {
            tenant_id: tenant_id.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// What a node tells of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// Frames, encoded, from number `first` on.
    Frames { first: usize, frames: Bytes },
    /// The run is the teller's: what others tell of it after this does not count.
    Claim,
    /// The teller goes on with frame number `first`.
    From { first: usize },
}

/// A piece of what is told of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    pub node_id: Arc<str>,
    pub told: Told,
}

impl Piece {
    /// As bytes: a kind, the node's id after its length, a number, the frames.
    pub fn encode(&self) -> Bytes {
        let (kind, first, frames): (u8, usize, &[u8]) = match &self.told {
            Told::Frames { first, frames } => (0, *first, frames),
            Told::Claim => (1, 0, &[]),
            Told::From { first } => (2, *first, &[]),
        };
        let node = self.node_id.as_bytes();
        let mut bytes = BytesMut::with_capacity(10 + node.len() + frames.len());
        bytes.put_u8(kind);
        bytes.put_u8(u8::try_from(node.len()).unwrap_or(0));
        bytes.put_slice(node);
        bytes.put_u64_le(first as u64);
        bytes.put_slice(frames);
        bytes.freeze()
    }

    /// Its frames from number `seen` on; `None` when it is none of frames, or some are missing
    /// between.
    pub fn after(self, seen: usize) -> Option<Vec<Frame>> {
        let Told::Frames { first, frames } = self.told else {
            return None;
        };
        let frames = frame::decode_all(frames).ok()?;
        let known = seen.checked_sub(first)?;
        Some(frames.into_iter().skip(known).collect())
    }

    /// `None` for bytes that no node of this version wrote.
    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        let kind = bytes.try_get_u8().ok()?;
        let node_length = usize::from(bytes.try_get_u8().ok()?);
        if bytes.len() < node_length {
            return None;
        }
        let node = bytes.split_to(node_length);
        let first = usize::try_from(bytes.try_get_u64_le().ok()?).ok()?;
        let told = match kind {
            0 => Told::Frames {
                first,
                frames: bytes,
            },
            1 => Told::Claim,
            2 => Told::From { first },
            _ => return None,
        };
        Some(Self {
            node_id: std::str::from_utf8(&node).ok()?.into(),
            told,
        })
    }
}

/// The frames from number `from` on that `pieces`, in the order told, come to. What a node told
/// after another one claimed the run does not count.
pub fn frames_of(pieces: impl IntoIterator<Item = Piece>, from: usize) -> Vec<Frame> {
    let mut owner: Option<Arc<str>> = None;
    let mut found: Vec<Frame> = Vec::new();
    for piece in pieces {
        let is_others = owner.as_ref().is_some_and(|owner| *owner != piece.node_id);
        match piece.told {
            Told::Claim => owner = Some(piece.node_id),
            _ if is_others => {}
            Told::From { first } => found.truncate(first.saturating_sub(from)),
            Told::Frames { first, frames } => {
                let Ok(frames) = frame::decode_all(frames) else {
                    continue;
                };
                let next = from + found.len();
                // A gap: Redis was away for a while.
                if first > next {
                    continue;
                }
                found.extend(frames.into_iter().skip(next - first));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Escaped;

    fn told(node: &str, told: Told) -> Piece {
        Piece {
            node_id: node.into(),
            told,
        }
    }

    fn frames(node: &str, first: usize, texts: &[&str]) -> Piece {
        let mut bytes = BytesMut::new();
        for text in texts {
            frame::encode(&Frame::Text(Escaped::escape(text)), &mut bytes);
        }
        let frames = bytes.freeze();
        told(node, Told::Frames { first, frames })
    }

    fn texts(pieces: Vec<Piece>, from: usize) -> Vec<String> {
        let found = frames_of(pieces, from).into_iter();
        found
            .map(|frame| match frame {
                Frame::Text(text) => text.unescape(),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn pieces_survive_the_way() {
        for piece in [
            frames("node_a", 7, &["x", "y"]),
            told("node_b", Told::Claim),
            told("node_b", Told::From { first: 9 }),
        ] {
            assert_eq!(Piece::decode(piece.encode()), Some(piece));
        }
        for bad in [&b""[..], b"\0", b"\0\xff", b"\x09\x01a\0\0\0\0\0\0\0\0"] {
            assert_eq!(Piece::decode(Bytes::from_static(bad)), None);
        }
    }

    #[test]
    fn frames_are_told_once_and_in_order() {
        let pieces = vec![frames("a", 0, &["0", "1"]), frames("a", 2, &["2"])];
        assert_eq!(texts(pieces.clone(), 0), ["0", "1", "2"]);
        assert_eq!(texts(pieces.clone(), 1), ["1", "2"]);
        assert_eq!(texts(pieces, 3), Vec::<String>::new());
    }

    #[test]
    fn a_node_that_lost_its_run_is_not_heard() {
        let pieces = vec![
            frames("a", 0, &["0", "1"]),
            told("b", Told::Claim),
            frames("a", 2, &["late"]),
            told("b", Told::From { first: 2 }),
            frames("b", 2, &["2", "3"]),
            frames("a", 4, &["later"]),
        ];
        assert_eq!(texts(pieces.clone(), 0), ["0", "1", "2", "3"]);
        assert_eq!(texts(pieces, 2), ["2", "3"]);
    }

    #[test]
    fn what_the_next_node_did_not_know_does_not_count() {
        // Redis was away: the next node goes on from what the store had.
        let pieces = vec![
            frames("a", 20, &["20"]),
            told("b", Told::Claim),
            told("b", Told::From { first: 10 }),
            frames("b", 10, &["10", "11"]),
        ];
        assert_eq!(texts(pieces.clone(), 10), ["10", "11"]);
        assert_eq!(texts(pieces, 20), Vec::<String>::new());
    }
}
