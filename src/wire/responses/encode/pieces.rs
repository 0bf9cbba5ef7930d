//! What a model says piece by piece: texts with their citations, refusals, reasoning.

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::{StreamEncoder, text_of};
use crate::frame::{Escaped, Signer, citation};
use crate::model::Signature;
use crate::wire::responses::items;

const ANNOTATION_ADDED: &str = "response.output_text.annotation.added";

/// A piece of a message that is under way.
pub(super) struct OpenPart {
    pub is_refusal: bool,
    /// Escaped.
    pub text: Vec<u8>,
    pub annotations: Vec<Value>,
    /// What each of its deltas begins with.
    pub head: Bytes,
}

pub(super) struct OpenMessage {
    pub id: String,
    pub output_index: usize,
    /// Content parts that are complete.
    pub content: Vec<Value>,
    pub part: Option<OpenPart>,
}

pub(super) struct OpenReasoning {
    pub id: String,
    pub output_index: usize,
    pub text: Vec<u8>,
    pub head: Bytes,
}

pub(super) enum Open {
    Nothing,
    Message(OpenMessage),
    Reasoning(OpenReasoning),
}

pub(super) fn plain(escaped: &[u8]) -> String {
    Escaped::from_valid(Bytes::copy_from_slice(escaped)).unescape()
}

/// What all deltas of a piece begin with; `members` are more members, with a comma behind each.
pub(super) fn delta_head(kind: &str, id: &str, output_index: usize, members: &str) -> Bytes {
    Bytes::from(format!(
        "event: {kind}\ndata: {{\"type\":\"{kind}\",\"item_id\":\"{id}\",\
         \"output_index\":{output_index},{members}\"sequence_number\":"
    ))
}

pub(super) fn reasoning_item(id: &str, text: &str, sealed: Option<String>) -> Value {
    let mut item = items::reasoning_members(text, sealed);
    item["id"] = json!(id);
    item["type"] = json!("reasoning");
    item
}

impl StreamEncoder {
    pub(super) fn text(&mut self, text: &Escaped, is_refusal: bool, buf: &mut BytesMut) {
        let fits = |open: &Open| {
            matches!(open, Open::Message(OpenMessage { part: Some(part), .. })
                if part.is_refusal == is_refusal)
        };
        if !fits(&self.open) {
            self.open_part(is_refusal, buf);
        }
        if let Open::Message(OpenMessage {
            part: Some(part), ..
        }) = &mut self.open
        {
            part.text.extend_from_slice(text.as_bytes());
            let head = part.head.clone();
            self.delta(buf, &head, text);
        }
    }

    pub(super) fn open_part(&mut self, is_refusal: bool, buf: &mut BytesMut) {
        if matches!(self.open, Open::Message(_)) {
            self.close_part(buf);
        } else {
            self.close(buf);
            let id = self.numbering.next("message");
            let item = json!({ "id": id, "type": "message", "role": "assistant",
                "status": "in_progress", "content": [] });
            let output_index = self.add(item, buf);
            self.open = Open::Message(OpenMessage {
                id,
                output_index,
                content: Vec::new(),
                part: None,
            });
        }
        let Open::Message(message) = &mut self.open else {
            return;
        };
        let content_index = message.content.len();
        let (kind, members) = match is_refusal {
            true => ("response.refusal.delta", ""),
            false => ("response.output_text.delta", "\"logprobs\":[],"),
        };
        let members = format!("\"content_index\":{content_index},{members}");
        let part = content_part(is_refusal, "", Vec::new());
        let added = json!({ "item_id": message.id, "output_index": message.output_index,
            "content_index": content_index, "part": part });
        message.part = Some(OpenPart {
            is_refusal,
            text: Vec::with_capacity(1024),
            annotations: Vec::new(),
            head: delta_head(kind, &message.id, message.output_index, &members),
        });
        self.event(buf, "response.content_part.added", added);
        if !is_refusal {
            let [before, last] = self.chars;
            self.chars = [before + last, 0];
            for citation in std::mem::take(&mut self.early) {
                self.cite(citation, buf);
            }
        }
    }

    /// Places are told in the answer's text, and given in the part's.
    pub(super) fn cite(&mut self, citation: Value, buf: &mut BytesMut) {
        let before = i64::try_from(self.chars[0]).unwrap_or_default();
        let annotation = citation::shifted(citation.clone(), -before);
        if let Open::Message(OpenMessage {
            id,
            output_index,
            content,
            part: Some(part),
        }) = &mut self.open
            && !part.is_refusal
        {
            let mut added = json!({ "item_id": id, "output_index": output_index,
                "content_index": content.len(), "annotation_index": part.annotations.len() });
            part.annotations.push(annotation.clone());
            added["annotation"] = annotation;
            self.event(buf, ANNOTATION_ADDED, added);
            return;
        }
        // The text that it came too late for.
        let told = match &mut self.open {
            Open::Message(message) => {
                let place = json!({ "item_id": message.id, "output_index": message.output_index });
                annotate(&mut message.content, &annotation).map(|added| (place, added))
            }
            _ => None,
        };
        let told = told.or_else(|| {
            let begun = self.answered_from.min(self.output.len());
            let items = self.output.iter_mut().enumerate().skip(begun).rev();
            items.into_iter().find_map(|(at, item)| {
                let place = json!({ "item_id": item["id"], "output_index": at });
                let content = item.get_mut("content")?.as_array_mut()?;
                annotate(content, &annotation).map(|added| (place, added))
            })
        });
        match told {
            Some((place, mut added)) => {
                added["item_id"] = place["item_id"].clone();
                added["output_index"] = place["output_index"].clone();
                self.event(buf, ANNOTATION_ADDED, added);
            }
            None => self.early.push(citation),
        }
    }

    pub(super) fn close_part(&mut self, buf: &mut BytesMut) {
        let Open::Message(message) = &mut self.open else {
            return;
        };
        let Some(part) = message.part.take() else {
            return;
        };
        let text = plain(&part.text);
        let place = json!({ "item_id": message.id, "output_index": message.output_index,
            "content_index": message.content.len() });
        let whole = content_part(part.is_refusal, &text, part.annotations);
        message.content.push(whole.clone());
        if !part.is_refusal {
            self.chars[1] = text.chars().count();
        }
        let mut done = place.clone();
        let kind = match part.is_refusal {
            true => {
                done["refusal"] = json!(text);
                "response.refusal.done"
            }
            false => {
                done["text"] = json!(text);
                done["logprobs"] = json!([]);
                "response.output_text.done"
            }
        };
        self.event(buf, kind, done);
        let mut done = place;
        done["part"] = whole;
        self.event(buf, "response.content_part.done", done);
    }

    pub(super) fn reasoning(&mut self, text: &Escaped, buf: &mut BytesMut) {
        if !matches!(self.open, Open::Reasoning(_)) {
            self.close(buf);
            self.open_reasoning(buf);
        }
        if let Open::Reasoning(reasoning) = &self.open
            && reasoning.text.is_empty()
        {
            let part = json!({ "type": "summary_text", "text": "" });
            let added = json!({ "item_id": reasoning.id, "summary_index": 0, "part": part,
                "output_index": reasoning.output_index });
            self.event(buf, "response.reasoning_summary_part.added", added);
        }
        if let Open::Reasoning(reasoning) = &mut self.open {
            reasoning.text.extend_from_slice(text.as_bytes());
            let head = reasoning.head.clone();
            self.delta(buf, &head, text);
        }
    }

    pub(super) fn open_reasoning(&mut self, buf: &mut BytesMut) {
        let id = self.numbering.next("reasoning");
        let item = reasoning_item(&id, "", None);
        let output_index = self.add(item, buf);
        let kind = "response.reasoning_summary_text.delta";
        self.open = Open::Reasoning(OpenReasoning {
            head: delta_head(kind, &id, output_index, "\"summary_index\":0,"),
            id,
            output_index,
            text: Vec::with_capacity(1024),
        });
    }

    /// As the record of the answer has it: a signature without a text is an item of its own.
    pub(super) fn reasoning_done(
        &mut self,
        signer: Signer,
        signature: &Bytes,
        redacted: bool,
        buf: &mut BytesMut,
    ) {
        let sealed = (!signature.is_empty()).then(|| {
            items::seal_signature(&Signature {
                signer,
                value: text_of(signature),
            })
        });
        if !redacted && matches!(self.open, Open::Reasoning(_)) {
            self.close_reasoning(sealed, buf);
        } else if sealed.is_some() {
            self.close(buf);
            self.open_reasoning(buf);
            self.close_reasoning(sealed, buf);
        } else if redacted {
            self.close(buf);
        } else {
            self.close_part(buf);
        }
    }

    pub(super) fn close_reasoning(&mut self, sealed: Option<String>, buf: &mut BytesMut) {
        let Open::Reasoning(reasoning) = std::mem::replace(&mut self.open, Open::Nothing) else {
            return;
        };
        let text = plain(&reasoning.text);
        if !text.is_empty() {
            let place = json!({ "item_id": reasoning.id, "summary_index": 0,
                "output_index": reasoning.output_index });
            let mut done = place.clone();
            done["text"] = json!(text);
            self.event(buf, "response.reasoning_summary_text.done", done);
            let mut done = place;
            done["part"] = json!({ "type": "summary_text", "text": text });
            self.event(buf, "response.reasoning_summary_part.done", done);
        }
        let sealed = sealed.filter(|_| self.encrypted);
        let item = reasoning_item(&reasoning.id, &text, sealed);
        self.done(reasoning.output_index, item, buf);
    }
}

fn content_part(is_refusal: bool, text: &str, annotations: Vec<Value>) -> Value {
    match is_refusal {
        true => json!({ "type": "refusal", "refusal": text }),
        false => json!({ "type": "output_text", "text": text, "annotations": annotations,
            "logprobs": [] }),
    }
}

/// Adds an annotation to the last text of a content, if it has one; gives what its event tells.
fn annotate(content: &mut [Value], annotation: &Value) -> Option<Value> {
    let (at, annotations) = content
        .iter_mut()
        .enumerate()
        .rev()
        .find_map(|(at, part)| Some((at, part.get_mut("annotations")?.as_array_mut()?)))?;
    annotations.push(annotation.clone());
    Some(
        json!({ "content_index": at, "annotation_index": annotations.len() - 1,
        "annotation": annotation }),
    )
}
