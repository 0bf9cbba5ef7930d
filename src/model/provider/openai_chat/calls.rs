//! Tool calls out of pieces. The wire says that a call's first piece has its index, id and name, and
//! that the others have its index; what servers send is told in `tests/fixtures/quirks`. No piece is
//! dropped: one that names no open call belongs to the last one, one that comes before its call's
//! name is kept until the name comes, and what still has no place at the end is an error.

use bytes::Bytes;
use serde::de::IgnoredAny;

use crate::frame::{Escaped, Frame};
use crate::ids;
use crate::model::error::ModelError;
use crate::model::provider::said::is_blank;
use crate::model::provider::{check_count, shared};

/// A piece of a call; what it does not tell is empty.
#[derive(Default)]
pub(super) struct Piece<'a> {
    pub index: Option<u32>,
    pub id: &'a str,
    pub name: &'a str,
    pub arguments: Option<Escaped>,
    pub signature: Option<Bytes>,
    /// It is a call of its own, of an answer that came in one piece.
    pub is_whole: bool,
}

struct Call {
    wire_index: Option<u32>,
    /// As the provider told it.
    wire_id: Bytes,
    name: Bytes,
    /// Its number among the frames, once it has a name.
    begun: Option<u32>,
    /// Arguments that came before the name.
    early: Vec<Escaped>,
    has_arguments: bool,
    /// The arguments so far, as long as every piece of them named the call.
    known: Option<String>,
    signature: Bytes,
}

/// Arguments are looked at again with each piece that names its call, up to here.
const MAX_KNOWN: usize = 16 * 1024;

/// The calls of one answer.
#[derive(Default)]
pub(super) struct Calls {
    calls: Vec<Call>,
    begun: u32,
}

enum Found {
    At(usize),
    New,
    /// What was told before is told again.
    Again,
}

/// Whether a text is a whole JSON object.
fn is_complete(text: &str) -> bool {
    let text = text.trim();
    text.starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

impl Calls {
    /// Whether there is a call.
    pub fn is_any(&self) -> bool {
        self.begun > 0
    }

    /// Takes a piece in.
    pub fn take(&mut self, piece: Piece<'_>, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let at = match self.find(&piece) {
            Found::At(at) => at,
            Found::Again => return Ok(()),
            Found::New => {
                check_count(self.calls.len() + 1)?;
                self.calls.push(Call {
                    wire_index: piece.index,
                    wire_id: shared(piece.id),
                    name: Bytes::new(),
                    begun: None,
                    early: Vec::new(),
                    has_arguments: false,
                    known: Some(String::new()),
                    signature: Bytes::new(),
                });
                self.calls.len() - 1
            }
        };
        if !piece.name.is_empty() && self.calls[at].begun.is_none() {
            self.begin(at, &piece, out);
        }
        let call = &mut self.calls[at];
        if let Some(signature) = piece.signature {
            call.signature = signature;
        }
        let Some(arguments) = piece.arguments else {
            return Ok(());
        };
        let length = call.known.as_ref().map_or(0, String::len) + arguments.as_bytes().len();
        if piece.name.is_empty() || (length > MAX_KNOWN && !piece.is_whole) {
            call.known = None;
        } else if let Some(known) = &mut call.known {
            known.push_str(&arguments.unescape());
        }
        match call.begun {
            Some(index) => call.say(index, arguments, out),
            None => call.early.push(arguments),
        }
        Ok(())
    }

    fn begin(&mut self, at: usize, piece: &Piece<'_>, out: &mut Vec<Frame>) {
        let id = match &self.calls[at].wire_id {
            told if !told.is_empty() => told.clone(),
            _ => shared(piece.id),
        };
        // Results are told apart by ids, so two calls cannot have one.
        let is_taken = self
            .calls
            .iter()
            .any(|call| call.begun.is_some() && call.wire_id == id);
        let shown = match id.is_empty() || is_taken {
            true => Bytes::from(ids::mint(ids::Kind::Call)),
            false => id.clone(),
        };
        let index = self.begun;
        self.begun += 1;
        let call = &mut self.calls[at];
        call.wire_id = id;
        call.name = shared(piece.name);
        call.begun = Some(index);
        out.push(Frame::ToolStarted {
            index,
            id: shown,
            name: call.name.clone(),
        });
        for arguments in std::mem::take(&mut call.early) {
            call.say(index, arguments, out);
        }
    }

    fn find(&self, piece: &Piece<'_>) -> Found {
        if piece.is_whole {
            return Found::New;
        }
        let place = |matches: &dyn Fn(&Call) -> bool| self.calls.iter().rposition(matches);
        if !piece.id.is_empty()
            && let Some(at) = place(&|call| call.wire_id == piece.id)
        {
            let call = &self.calls[at];
            let elsewhere = piece.index.is_some()
                && call.wire_index.is_some()
                && piece.index != call.wire_index;
            return match call.begun.is_none() || piece.name.is_empty() {
                true => Found::At(at),
                false if elsewhere => Found::New,
                false => call.named_again(at, piece),
            };
        }
        let open = match piece.index {
            Some(index) => place(&|call| call.wire_index == Some(index)),
            None => self.calls.len().checked_sub(1),
        };
        let Some(at) = open else {
            return Found::New;
        };
        let call = &self.calls[at];
        let is_new_id = !piece.id.is_empty() && !call.wire_id.is_empty();
        match call.begun.is_none() || piece.name.is_empty() {
            true => Found::At(at),
            false if call.name != piece.name => Found::New,
            // Another id and a name are another call, but in the middle of its arguments.
            false if is_new_id => match &call.known {
                Some(known) if !known.trim().is_empty() && !is_complete(known) => Found::At(at),
                _ => Found::New,
            },
            false => call.named_again(at, piece),
        }
    }

    /// Ends all calls. Pieces that never got a name go to the last call before them.
    pub fn end(&mut self, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let mut last = None;
        for at in 0..self.calls.len() {
            if self.calls[at].begun.is_some() {
                last = Some(at);
                continue;
            }
            let early = std::mem::take(&mut self.calls[at].early);
            let Some(last) = last.or_else(|| self.calls.iter().position(|c| c.begun.is_some()))
            else {
                return Err(nameless());
            };
            let text: String = early.iter().map(Escaped::unescape).collect();
            let call = &mut self.calls[last];
            if call.has_arguments && is_complete(&text) {
                return Err(nameless());
            }
            for arguments in early {
                call.say(call.begun.unwrap_or_default(), arguments, out);
            }
        }
        for call in &mut self.calls {
            let Some(index) = call.begun else {
                continue;
            };
            if !call.has_arguments {
                call.say(index, Escaped::from_valid(Bytes::from_static(b"{}")), out);
            }
            out.push(Frame::ToolDone {
                index,
                signature: call.signature.clone(),
            });
        }
        Ok(())
    }
}

fn nameless() -> ModelError {
    ModelError::Malformed("pieces of a tool call that has no name".to_owned())
}

impl Call {
    fn say(&mut self, index: u32, arguments: Escaped, out: &mut Vec<Frame>) {
        if !self.has_arguments && is_blank(&arguments) {
            return;
        }
        self.has_arguments = true;
        out.push(Frame::ToolArgs {
            index,
            delta: arguments,
        });
    }

    /// What a piece means that has this call's name, and its id or none.
    fn named_again(&self, at: usize, piece: &Piece<'_>) -> Found {
        if self.name != piece.name {
            return Found::New;
        }
        let Some(arguments) = piece.arguments.as_ref().filter(|_| self.has_arguments) else {
            return Found::At(at);
        };
        let arguments = arguments.unescape();
        match &self.known {
            Some(known) if !is_complete(known) => Found::At(at),
            Some(known) if *known == arguments && !piece.id.is_empty() => Found::Again,
            Some(_) => Found::New,
            None if !is_complete(&arguments) => Found::At(at),
            None if piece.id.is_empty() => Found::New,
            None => Found::Again,
        }
    }
}
