//! The AI SDK's UI message stream as a client wire (`wires.md`; the protocol is
//! `uiMessageChunkSchema` of the npm package `ai`, header `x-vercel-ai-ui-message-stream: v1`).
//!
//! Lives here: `decode` (what `DefaultChatTransport` posts), `encode` (frames to parts), `page` (the same
//! parts for a web page of our own).

pub mod decode;
pub mod encode;
mod head;
mod page;
mod serve;

pub use decode::{DecodedUiChat, UiRequest, decode};
pub use encode::Encoder;
pub use serve::{documented, routes};
