//! Instructions, which clients give as messages among the others.

use crate::model::{Caching, Part};

/// The system text, as its messages make it.
#[derive(Default)]
pub struct System {
    pub text: String,
    pub caching: Caching,
}

impl System {
    /// Appends a message's parts, which are texts.
    pub fn add(&mut self, parts: &[Part]) -> Result<(), &'static str> {
        let mut is_first = true;
        for part in parts {
            match part {
                Part::Text { text } if !text.is_empty() => {
                    if std::mem::take(&mut is_first) && !self.text.is_empty() {
                        self.text.push_str("\n\n");
                    }
                    self.text.push_str(text);
                }
                Part::Text { .. } | Part::Name { .. } => {}
                Part::CacheHere { ttl } => {
                    let mark = (self.text.len(), ttl.clone());
                    self.caching.system.push(mark);
                }
                _ => return Err("a system message holds text alone"),
            }
        }
        Ok(())
    }
}
