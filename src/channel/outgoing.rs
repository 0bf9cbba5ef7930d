//! An answer, as it leaves: its words, and the files that it carries. Those are what models make, which
//! stands in their words as links to `data:` URLs, and what tools gave beside text.

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use pulldown_cmark::{Event, Parser, Tag, TagEnd};

use super::Channel;
use super::markdown::options;
use crate::model::{Part, Role, Source, Turn, extension_of, said_text};
use crate::tools::TOO_LARGE;

/// Files of one answer; more are told of.
const MOST: usize = 10;
/// Of a file's name, in characters.
const MAX_NAME: usize = 100;

/// Models forget what fills the end.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A file that leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    pub name: String,
    pub media_type: String,
    pub content: Bytes,
}

/// What an answer carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carried {
    File(Outgoing),
    /// What cannot leave, and why.
    Note(String),
}

/// What is to be said and sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Markdown.
    words: String,
    pub carried: Vec<Carried>,
    /// What the person may answer.
    pub replies: Vec<String>,
}

/// A message of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// In the channel's own format, with replies to choose from.
    Words(String, Vec<String>),
    /// With these words, which may be none.
    Files(String, Vec<Outgoing>),
}

/// A line that tells of a file which does not leave.
pub fn note(name: &str, why: &str) -> String {
    // Nothing in it is a mark of Markdown.
    format!("[The file `{}` {why}.]", name.replace('`', "'"))
}

/// Those whose files are told of in place of what was to be sent with them.
pub fn notes(files: &[Outgoing]) -> String {
    let all = files
        .iter()
        .map(|file| note(&file.name, "could not be sent here"));
    all.collect::<Vec<_>>().join("\n\n")
}

/// Links to `data:` URLs in a Markdown text: where each stands, what it says, where it leads.
fn data_links(markdown: &str) -> Vec<(Range<usize>, String, String)> {
    let mut found: Vec<(Range<usize>, String, String)> = Vec::new();
    if !markdown.contains("](data:") {
        return found;
    }
    let mut is_open = false;
    for (event, range) in Parser::new_ext(markdown, options()).into_offset_iter() {
        match event {
            Event::Start(Tag::Image { dest_url, .. } | Tag::Link { dest_url, .. })
                if !is_open && dest_url.starts_with("data:") =>
            {
                is_open = true;
                found.push((range, String::new(), dest_url.into_string()));
            }
            Event::End(TagEnd::Image | TagEnd::Link) => {
                let last = found.last().map_or(0, |(last, ..)| last.end);
                is_open &= range.end < last;
            }
            Event::Text(text) if is_open => {
                if let Some((_, label, _)) = found.last_mut() {
                    label.push_str(&text);
                }
            }
            _ => {}
        }
    }
    found
}

/// A text without the files that stand in it.
pub fn words_of(markdown: &str) -> Cow<'_, str> {
    let links = data_links(markdown);
    if links.is_empty() {
        return Cow::Borrowed(markdown);
    }
    let mut words = String::new();
    let mut from = 0;
    for (range, ..) in links {
        words.push_str(&markdown[from..range.start]);
        from = range.end;
    }
    words.push_str(&markdown[from..]);
    Cow::Owned(words)
}

/// Of a text that is being written, what stands before a file that is not whole yet.
pub fn before_unfinished(markdown: &str) -> &str {
    const BEGIN: &str = "data:";
    let Some(at) = markdown.rfind("](") else {
        return markdown;
    };
    let url = &markdown[at + 2..];
    let is_file = BEGIN.starts_with(url) || url.starts_with(BEGIN);
    if !is_file || url.contains(')') {
        return markdown;
    }
    let before = &markdown[..markdown[..at].rfind('[').unwrap_or(at)];
    before.strip_suffix('!').unwrap_or(before)
}

impl Answer {
    /// What is said in `markdown`, and what `transcript`, the turns of its run, gives besides.
    pub fn of(markdown: &str, transcript: Option<&str>) -> Self {
        let mut answer = Self::default();
        let turns: Vec<Turn> = transcript
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        for turn in &turns {
            match turn.role {
                Role::Assistant => answer.take_links(&said_text(&turn.parts)),
                Role::Tool => turn.parts.iter().for_each(|part| answer.take_result(part)),
                Role::User => {}
            }
        }
        // Of a run that was broken off there is no turn; of others it is the last.
        answer.take_links(markdown);
        answer.words = words_of(markdown).trim().to_owned();
        answer
    }

    /// What the tools of these turns gave, without words.
    pub fn of_tools(turns: &[Turn]) -> Self {
        let mut answer = Self::default();
        let results = turns.iter().flat_map(|turn| &turn.parts);
        results.for_each(|part| answer.take_result(part));
        answer
    }

    fn take_links(&mut self, markdown: &str) {
        for (_, label, url) in data_links(markdown) {
            self.take(&Source::from_url(&url), Some(&label));
        }
    }

    fn take_result(&mut self, part: &Part) {
        let Part::ToolResult {
            content,
            is_error: false,
            ..
        } = part
        else {
            return;
        };
        for part in content {
            match part {
                Part::Image { source, .. } => self.take(source, None),
                Part::File { source, name } => self.take(source, name.as_deref()),
                Part::Audio { data, format } => {
                    let source = Source::from_data(&format!("audio/{format}"), data.clone());
                    self.take(&source, None);
                }
                // What the model is told of, the person is told of, too.
                Part::Text { text } if TOO_LARGE.contains(&text.as_str()) => {
                    self.carried.push(Carried::Note(text.clone()));
                }
                _ => {}
            }
        }
    }

    fn take(&mut self, source: &Source, name: Option<&str>) {
        let number = self.carried.len() + 1;
        let carried = match source {
            Source::Data { media_type, data } => {
                let name = name_of(name, media_type, number);
                match BASE64.decode(data) {
                    Ok(content) => Carried::File(Outgoing {
                        name,
                        media_type: plain(media_type),
                        content: content.into(),
                    }),
                    Err(_) => Carried::Note(note(&name, "is broken")),
                }
            }
            Source::Url { url } => Carried::Note(format!("<{url}>")),
            // Of the provider's own, or of an upload that whoever named it has.
            Source::FileId { id } => Carried::Note(note(id, "is kept elsewhere")),
        };
        // What a model's last turn says is in the transcript, too; a tool may give the same twice.
        let is_known = self.carried.iter().any(|known| match (known, &carried) {
            (Carried::File(known), Carried::File(new)) => known.content == new.content,
            (known, new) => known == new,
        });
        if !is_known {
            self.carried.push(carried);
        }
    }

    /// The messages that it leaves as, always the same for the same answer: files after the words, one
    /// each, or with them where the channel has them so. What cannot leave is told in the words.
    pub fn pieces(self, channel: &dyn Channel, limit: usize) -> Vec<Piece> {
        let is_within = channel.sends_files_within();
        let (mut files, mut lines) = (Vec::new(), Vec::new());
        let (mut together, mut left_out) = (0, 0);
        for carried in self.carried {
            let file = match carried {
                Carried::File(file) => file,
                Carried::Note(line) => {
                    lines.push(line);
                    continue;
                }
            };
            let largest = channel.largest_file(&file.media_type);
            let size = file.content.len();
            let room = match is_within {
                true => limit.min(largest.unwrap_or(0)).saturating_sub(together),
                false => limit.min(largest.unwrap_or(0)),
            };
            match largest {
                None => lines.push(note(&file.name, "cannot be shown here")),
                Some(_) if size > room => {
                    lines.push(note(&file.name, "is too large to be sent here"));
                }
                Some(_) if files.len() == MOST => left_out += 1,
                Some(_) => {
                    together += size;
                    files.push(file);
                }
            }
        }
        if left_out > 0 {
            lines.push(format!("[{left_out} more files are not sent.]"));
        }
        let mut words = self.words;
        for line in lines.into_iter().take(MOST) {
            if !words.is_empty() {
                words.push_str("\n\n");
            }
            words.push_str(&line);
        }
        let messages = match words.is_empty() {
            true => Vec::new(),
            false => channel.messages(&words),
        };
        let mut messages = messages.into_iter();
        let mut pieces = Vec::new();
        if is_within && !files.is_empty() {
            let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
            let first = messages.next();
            let words = first.unwrap_or_else(|| format!("Attached: {}", names.join(", ")));
            pieces.push(Piece::Files(words, std::mem::take(&mut files)));
        }
        pieces.extend(messages.map(|words| Piece::Words(words, Vec::new())));
        // Below all that is said.
        if let Some(Piece::Words(_, replies)) = pieces.last_mut() {
            *replies = self.replies;
        }
        let apart = files.into_iter();
        pieces.extend(apart.map(|file| Piece::Files(String::new(), vec![file])));
        pieces
    }
}

/// A media type as a header may have it.
fn plain(media_type: &str) -> String {
    let is_fine = |b: u8| b.is_ascii_alphanumeric() || b"/.+-".contains(&b);
    let known = media_type.contains('/') && media_type.bytes().all(is_fine);
    match known && media_type.len() <= MAX_NAME {
        true => media_type.to_ascii_lowercase(),
        false => "application/octet-stream".to_owned(),
    }
}

/// What a file is called: as it was named, if that says anything, with the ending of what it is.
fn name_of(name: Option<&str>, media_type: &str, number: usize) -> String {
    let bare = name.and_then(|name| name.rsplit(['/', '\\']).next());
    let bare: String = bare
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control() && !r#"<>:"|?*`"#.contains(*c))
        .take(MAX_NAME)
        .collect();
    let bare = bare.trim().trim_matches('.');
    let is_named = !matches!(bare, "" | "image" | "file");
    let base = match (is_named, media_type.starts_with("image/")) {
        (true, _) => bare.to_owned(),
        (false, true) => format!("image-{number}"),
        (false, false) => format!("file-{number}"),
    };
    let has_ending = is_named && base.rsplit_once('.').is_some_and(|(_, end)| end.len() <= 5);
    match extension_of(media_type).filter(|_| !has_ending) {
        Some(extension) => format!("{base}.{extension}"),
        None => base,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::email::Email;
    use crate::channel::telegram::Telegram;

    const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB";

    fn names(answer: &Answer) -> Vec<&str> {
        let named = answer.carried.iter().map(|carried| match carried {
            Carried::File(file) => file.name.as_str(),
            Carried::Note(line) => line.as_str(),
        });
        named.collect()
    }

    #[test]
    fn pictures_in_words_are_taken_out_once() {
        let said = format!(
            "Here:\n\n![a cat](data:image/png;base64,{PNG})\n\nand ![image](data:image/png;base64,{PNG}BBBB) \
             `![x](data:image/png;base64,{PNG})` [file](https://x.test/a.pdf)"
        );
        let transcript = serde_json::to_string(&vec![
            Turn::text(Role::User, format!("![u](data:image/png;base64,{PNG}AAAA)")),
            Turn::text(Role::Assistant, said.clone()),
        ]);
        let answer = Answer::of(&said, transcript.ok().as_deref());
        assert_eq!(names(&answer), ["a cat.png", "image-2.png"]);
        assert!(answer.words.starts_with("Here:"));
        assert!(answer.words.contains("`![x](data:"), "{}", answer.words);
        assert!(answer.words.ends_with("[file](https://x.test/a.pdf)"));
        assert_eq!(
            words_of("no [link](https://x.test)"),
            "no [link](https://x.test)"
        );
        // A picture within a link, and one that is not whole.
        let nested =
            format!("[![p](data:image/png;base64,{PNG})](https://x.test) ![q](data:image/pn");
        let answer = Answer::of(&nested, None);
        assert_eq!(names(&answer), ["p.png"]);
        assert_eq!(Answer::of("", None), Answer::default());
    }

    #[test]
    fn a_file_that_is_being_written_is_not_shown() {
        let whole = format!("Here: ![a [b] c](data:image/png;base64,{PNG}) and");
        let begun = whole.find("data:").expect("a URL");
        for end in begun..begun + 30 {
            let shown = before_unfinished(&whole[..end]);
            assert!(
                shown.starts_with("Here:") && !shown.contains("]("),
                "{shown}"
            );
        }
        assert_eq!(before_unfinished(&whole), whole);
        for other in ["", "a](https://x", "[a](", "![a](x.png) data:", "é]("] {
            assert!(other.starts_with(before_unfinished(other)));
        }
        assert_eq!(before_unfinished("see [a](https://x"), "see [a](https://x");
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_said_leaves_within_its_limits(
            text in "(!?\\[|\\]|\\(data:|image/png;base64,|aGk=|\\)|[`\n| *<>#-]|ä|x|\\(https://x\\.test){0,24}",
        ) {
            proptest::prop_assert!(words_of(&text).len() <= text.len());
            proptest::prop_assert!(text.starts_with(before_unfinished(&text)));
            let pieces = Answer::of(&text, None).pieces(&Telegram, 100);
            proptest::prop_assert!(pieces.len() <= text.len() + 1);
            for piece in pieces {
                if let Piece::Files(_, files) = piece {
                    proptest::prop_assert_eq!(files.len(), 1);
                }
            }
        }
    }

    fn results(content: Vec<Part>, is_error: bool) -> String {
        let part = Part::ToolResult {
            tool_call_id: "c".to_owned(),
            content,
            is_error,
        };
        let turn = Turn {
            role: Role::Tool,
            parts: vec![part],
        };
        serde_json::to_string(&vec![turn]).expect("JSON")
    }

    fn file(name: &str, media_type: &str, data: &str) -> Part {
        Part::File {
            source: Source::Data {
                media_type: media_type.to_owned(),
                data: data.to_owned(),
            },
            name: Some(name.to_owned()),
        }
    }

    #[test]
    fn what_tools_gave_is_carried_and_what_cannot_be_is_told() {
        let all = vec![
            file("../../etc/re\"port.pdf", "application/pdf", "JVBERi0x"),
            file("x", "text/plain\r\nX: y", "aGk="),
            file("broken", "text/plain", "!"),
            Part::Image {
                source: Source::Url {
                    url: "https://x.test/a.png".to_owned(),
                },
                detail: None,
            },
            Part::Text {
                text: TOO_LARGE[1].to_owned(),
            },
        ];
        let transcript = results(all.clone(), false);
        let answer = Answer::of("Done.", Some(&transcript));
        assert_eq!(
            names(&answer)[..3],
            ["report.pdf", "x", "[The file `broken.txt` is broken.]"]
        );
        let pieces = answer.pieces(&Telegram, 3);
        let [Piece::Words(words, _), Piece::Files(none, sent)] = &pieces[..] else {
            panic!("{pieces:?}");
        };
        assert!(words.contains("is too large to be sent here"), "{words}");
        assert!(words.contains("is broken") && words.contains("https://x.test/a.png"));
        assert!(words.contains(TOO_LARGE[1]), "{words}");
        assert_eq!((none.as_str(), sent[0].name.as_str()), ("", "x"));
        assert_eq!(sent[0].media_type, "application/octet-stream");
        // In a letter all are together.
        let answer = Answer::of("", Some(&transcript));
        let pieces = answer.pieces(&Email::default(), 100);
        assert!(matches!(&pieces[..], [Piece::Files(_, files)] if files.len() == 2));
        // What a failed tool gave was for the model.
        assert_eq!(Answer::of("", Some(&results(all, true))), Answer::default());
    }

    #[test]
    fn more_files_than_anybody_wants_are_told_of() {
        let all = (0..14).map(|n| file("f", "text/plain", &format!("aG{n:02}")));
        let answer = Answer::of("", Some(&results(all.collect(), false)));
        let pieces = answer.pieces(&Telegram, 100);
        assert_eq!(pieces.len(), 1 + MOST);
        assert_eq!(
            pieces[0],
            Piece::Words("[4 more files are not sent.]".to_owned(), Vec::new())
        );
    }
}
