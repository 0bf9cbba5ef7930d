//! The vocabulary that OpenAI's interfaces share, and with them the wires that are like them: contents
//! of messages, instructions, forms of answers, tools of free text, decisions on approvals, and bodies
//! that are passed on. No wire itself.

pub mod approval;
pub mod choice;
pub mod content;
pub mod rewrite;
pub mod system;
pub mod tools;
