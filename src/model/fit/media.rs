//! Images, files and sounds as the target takes them: each is told by its bytes, not by its label; a
//! text that it takes no files of becomes a text part; what it does not take at all is refused where
//! the caller can still change it, and told to the model where it is a part of what was said before.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::{MediaKind, ProviderWire, Rules};
use crate::model::media_type::{kind_of_bytes, type_of};
use crate::model::request::{Part, Source, Turn};
use crate::model::routing::Route;

/// What no target takes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The turn, its part, and the part of that if it is a tool's result.
    pub place: (usize, usize, Option<usize>),
    pub message: String,
}

/// Base64 that is decoded to tell what it is.
const BEGINNING: usize = 64;

/// What becomes of a part.
enum Fate {
    Stays,
    Becomes(Box<Part>),
    /// For this reason.
    Refused(String),
}

/// Those of `routes` that take all that is in `turns`; why the first does not, when there is none.
pub fn that_take(routes: Vec<Route>, turns: &[Turn]) -> Result<Vec<Route>, Refused> {
    if !turns.iter().any(|turn| turn.parts.iter().any(holds_media)) {
        return Ok(routes);
    }
    let mut first = None;
    let mut kept = Vec::with_capacity(routes.len());
    for route in routes {
        match refused(turns, route.wire, &route.rules) {
            None => kept.push(route),
            Some(why) => {
                first.get_or_insert(why);
            }
        }
    }
    match first {
        Some(why) if kept.is_empty() => Err(why),
        _ => Ok(kept),
    }
}

/// The first part that the target does not take.
fn refused(turns: &[Turn], wire: ProviderWire, rules: &Rules) -> Option<Refused> {
    let why = |part: &Part| match fate(part, wire, rules) {
        Fate::Refused(message) => Some(message),
        Fate::Stays | Fate::Becomes(_) => None,
    };
    for (turn, parts) in turns.iter().map(|turn| &turn.parts).enumerate() {
        for (at, part) in parts.iter().enumerate() {
            let found = match part {
                Part::ToolResult { content, .. } => content
                    .iter()
                    .enumerate()
                    .find_map(|(inner, part)| Some((Some(inner), why(part)?))),
                part => why(part).map(|message| (None, message)),
            };
            if let Some((inner, message)) = found {
                return Some(Refused {
                    place: (turn, at, inner),
                    message,
                });
            }
        }
    }
    None
}

/// Makes all media in `turns` such that the target takes them; what it does not is told in words.
pub fn fit_media(turns: &mut [Turn], wire: ProviderWire, rules: &Rules) {
    for part in turns.iter_mut().flat_map(|turn| &mut turn.parts) {
        match part {
            Part::ToolResult { content, .. } => {
                content.iter_mut().for_each(|part| fit(part, wire, rules));
            }
            part => fit(part, wire, rules),
        }
    }
}

fn fit(part: &mut Part, wire: ProviderWire, rules: &Rules) {
    match fate(part, wire, rules) {
        Fate::Stays => {}
        Fate::Becomes(other) => *part = *other,
        Fate::Refused(why) => {
            *part = Part::Text {
                text: format!("[left out here: {why}]"),
            };
        }
    }
}

fn holds_media(part: &Part) -> bool {
    match part {
        Part::ToolResult { content, .. } => content.iter().any(Part::is_media),
        part => part.is_media(),
    }
}

fn fate(part: &Part, wire: ProviderWire, rules: &Rules) -> Fate {
    match part {
        Part::Image { source, .. } => of_source(part, source, None, wire, rules),
        Part::File { source, name } => of_source(part, source, name.as_deref(), wire, rules),
        Part::Audio { format, .. } => {
            let kind = MediaKind::of(&format!("audio/{format}"));
            match rules.media.has(kind) {
                true => Fate::Stays,
                false => not_taken(&format!("audio of the format '{format}'"), rules),
            }
        }
        _ => Fate::Stays,
    }
}

fn not_taken(what: &str, rules: &Rules) -> Fate {
    Fate::Refused(format!(
        "{what} is not taken by this model, which takes {}",
        rules.media.in_words()
    ))
}

fn of_source(
    part: &Part,
    source: &Source,
    name: Option<&str>,
    wire: ProviderWire,
    rules: &Rules,
) -> Fate {
    match source {
        Source::FileId { .. } if matches!(part, Part::Image { .. }) && !rules.image_ids => {
            Fate::Refused("images are taken by URL or as data, not by a provider's id".to_owned())
        }
        Source::FileId { .. } => Fate::Stays,
        Source::Url { url } => of_url(part, url, rules),
        Source::Data { media_type, data } => of_data(part, media_type, data, name, wire, rules),
    }
}

fn of_url(part: &Part, url: &str, rules: &Rules) -> Fate {
    let told = type_of(url);
    let kind = told.map(MediaKind::of);
    if let (Some(told), Some(kind)) = (told, kind)
        && !rules.media.has(kind)
    {
        return not_taken(&format!("'{told}' by URL"), rules);
    }
    match part {
        Part::File { source, .. } if kind.is_some_and(MediaKind::is_image) => {
            Fate::Becomes(Box::new(Part::Image {
                source: source.clone(),
                detail: None,
            }))
        }
        Part::File { .. } if kind != Some(MediaKind::Video) && !rules.file_urls => Fate::Refused(
            "files are not taken by URL: send their data, or upload them and name their id"
                .to_owned(),
        ),
        // Of documents by URL it reads no text.
        Part::File { .. } if kind == Some(MediaKind::Text) && !rules.text_urls => {
            not_taken("a file of text by URL", rules)
        }
        _ => Fate::Stays,
    }
}

fn of_data(
    part: &Part,
    media_type: &str,
    data: &str,
    name: Option<&str>,
    wire: ProviderWire,
    rules: &Rules,
) -> Fate {
    let actual = actual_type(media_type, data, name);
    let kind = MediaKind::of(actual);
    if !rules.media.has(kind) {
        // Any model reads text, and nearly all that is text is told as something else.
        return match text_of(kind, data) {
            Some(text) => Fate::Becomes(Box::new(as_text(name, &text))),
            None => not_taken(&told(actual, name), rules),
        };
    }
    if kind.is_image() && data.len() as u64 > u64::from(rules.max_image_base64) {
        return Fate::Refused(format!(
            "{} has {} bytes in base64; this model takes {}",
            told(actual, name),
            data.len(),
            rules.max_image_base64
        ));
    }
    let source = || Source::Data {
        media_type: actual.to_owned(),
        data: data.to_owned(),
    };
    let is_right = actual == media_type;
    match part {
        Part::Image { .. } if kind.is_image() && is_right => Fate::Stays,
        Part::Image { detail, .. } if kind.is_image() => Fate::Becomes(Box::new(Part::Image {
            source: source(),
            detail: detail.clone(),
        })),
        _ if kind.is_image() => Fate::Becomes(Box::new(Part::Image {
            source: source(),
            detail: None,
        })),
        _ if wire == ProviderWire::OpenaiChat && kind.audio_format().is_some() => {
            Fate::Becomes(Box::new(Part::Audio {
                data: data.to_owned(),
                format: kind.audio_format().unwrap_or_default().to_owned(),
            }))
        }
        // These have a place for text, in UTF-8.
        _ if wire == ProviderWire::Anthropic && kind == MediaKind::Text => match utf8(data) {
            true if matches!(part, Part::File { .. }) => Fate::Stays,
            _ => Fate::Becomes(Box::new(as_text(
                name,
                &text_of(kind, data).unwrap_or_default(),
            ))),
        },
        Part::File { .. } if is_right => Fate::Stays,
        _ => Fate::Becomes(Box::new(Part::File {
            source: source(),
            name: name.map(str::to_owned),
        })),
    }
}

fn told(media_type: &str, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("the file '{name}' ({media_type})"),
        None => format!("'{media_type}'"),
    }
}

fn as_text(name: Option<&str>, text: &str) -> Part {
    Part::Text {
        text: match name {
            Some(name) => format!("File '{name}':\n{text}"),
            None => text.to_owned(),
        },
    }
}

/// What it is: by its first bytes, else by its label, else by its name.
fn actual_type<'a>(label: &'a str, data: &str, name: Option<&str>) -> &'a str {
    let beginning = data.get(..BEGINNING.min(data.len() / 4 * 4));
    let beginning = beginning.and_then(|piece| STANDARD.decode(piece).ok());
    if let Some(kind) = beginning.as_deref().and_then(kind_of_bytes) {
        return kind;
    }
    match label {
        "application/octet-stream" => name.and_then(type_of).unwrap_or(label),
        label => label,
    }
}

fn utf8(data: &str) -> bool {
    let bytes = STANDARD.decode(data).unwrap_or_default();
    std::str::from_utf8(&bytes).is_ok()
}

/// The text of what is text, whatever it is told to be.
fn text_of(kind: MediaKind, data: &str) -> Option<String> {
    if !matches!(
        kind,
        MediaKind::Text | MediaKind::OtherImage | MediaKind::Other
    ) {
        return None;
    }
    let bytes = STANDARD.decode(data).ok()?;
    let wide = |bytes: &[u8], read: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|c| read([c[0], c[1]])).collect();
        String::from_utf16(&units).ok()
    };
    match &bytes[..] {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        all if all.contains(&0) => None,
        all => match std::str::from_utf8(all) {
            Ok(text) => Some(text.trim_start_matches('\u{feff}').to_owned()),
            // Each byte of the older encodings stands for a letter.
            Err(_) if kind == MediaKind::Text => Some(all.iter().map(|b| char::from(*b)).collect()),
            Err(_) => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::request::Role;
    use crate::model::rules::resolve;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n0000";
    const TIFF: &[u8] = b"II*\0\x08\0\0\0";

    fn data(media_type: &str, bytes: &[u8]) -> Source {
        Source::Data {
            media_type: media_type.to_owned(),
            data: STANDARD.encode(bytes),
        }
    }

    fn image(media_type: &str, bytes: &[u8]) -> Part {
        Part::Image {
            source: data(media_type, bytes),
            detail: None,
        }
    }

    fn file(media_type: &str, bytes: &[u8], name: &str) -> Part {
        Part::File {
            source: data(media_type, bytes),
            name: Some(name.to_owned()),
        }
    }

    fn of(wire: ProviderWire, host: &str, model: &str, part: Part) -> Result<Part, String> {
        let rules = resolve(wire, host, model, &[]);
        match fate(&part, wire, &rules) {
            Fate::Stays => Ok(part),
            Fate::Becomes(other) => Ok(*other),
            Fate::Refused(why) => Err(why),
        }
    }

    use ProviderWire::{Anthropic, Gemini, OpenaiChat, OpenaiResponses};

    const TARGETS: [(ProviderWire, &str, &str); 4] = [
        (OpenaiChat, "api.openai.com", "gpt-5"),
        (OpenaiResponses, "api.openai.com", "gpt-5"),
        (Anthropic, "api.anthropic.com", "claude-opus-4-8"),
        (
            Gemini,
            "generativelanguage.googleapis.com",
            "gemini-3.5-flash",
        ),
    ];

    #[test]
    fn a_label_is_not_trusted_over_the_bytes() {
        for (wire, host, model) in TARGETS {
            let right = Ok(image("image/png", PNG));
            for part in [
                image("image/png", PNG),
                image("image/jpeg", PNG),
                image("application/octet-stream", PNG),
                file("image/png", PNG, "a.png"),
                file("application/pdf", PNG, "a.pdf"),
            ] {
                assert_eq!(of(wire, host, model, part), right, "{wire:?}");
            }
            let pdf = of(
                wire,
                host,
                model,
                image("application/pdf", b"%PDF-1.4 0000"),
            );
            let is_file = matches!(&pdf, Ok(Part::File { source: Source::Data { media_type, .. }, .. })
                if media_type == "application/pdf");
            assert!(is_file, "{wire:?} {pdf:?}");
        }
    }

    #[test]
    fn what_is_text_becomes_text_where_files_of_it_are_not_taken() {
        let as_text = |name: &str, text: &str| {
            Ok(Part::Text {
                text: format!("File '{name}':\n{text}"),
            })
        };
        for (wire, host, model) in [TARGETS[0], TARGETS[3]] {
            for (media_type, name, bytes, text) in [
                ("text/markdown", "a.md", "# hi".as_bytes(), "# hi"),
                ("application/json", "a.json", b"{}", "{}"),
                ("application/octet-stream", "a.py", b"x = 1", "x = 1"),
                ("application/x-unheard-of", "a.abc", b"\xef\xbb\xbfx", "x"),
                ("text/csv", "a.csv", b"\xff\xfea\0,\0", "a,"),
                ("text/plain", "a.txt", b"caf\xe9", "café"),
            ] {
                let part = file(media_type, bytes, name);
                assert_eq!(
                    of(wire, host, model, part),
                    as_text(name, text),
                    "{wire:?} {name}"
                );
            }
            let svg = image("image/svg+xml", b"<svg/>");
            let text = "<svg/>".to_owned();
            assert_eq!(of(wire, host, model, svg), Ok(Part::Text { text }));
        }
        // Where they are, they stay.
        let note = file("text/markdown", b"# hi", "a.md");
        for (wire, host, model) in [TARGETS[1], TARGETS[2]] {
            assert_eq!(of(wire, host, model, note.clone()), Ok(note.clone()));
        }
        let latin = of(
            Anthropic,
            "",
            "claude-opus-4-8",
            file("text/plain", b"caf\xe9", "a"),
        );
        assert_eq!(latin, as_text("a", "café"));
    }

    #[test]
    fn what_no_model_could_read_is_refused_with_what_it_takes() {
        for (wire, host, model) in TARGETS {
            let why = of(wire, host, model, image("image/tiff", TIFF)).expect_err("TIFF");
            assert!(
                why.contains("'image/tiff'") && why.contains("PNG"),
                "{wire:?} {why}"
            );
        }
        let audio = |format: &str| Part::Audio {
            data: "AAAA".to_owned(),
            format: format.to_owned(),
        };
        let takes = |at: usize, part: Part| {
            let (wire, host, model) = TARGETS[at];
            of(wire, host, model, part).is_ok()
        };
        let of_audio = [
            ("wav", [true, false, false, true]),
            ("flac", [false, false, false, true]),
        ];
        for (format, taken) in of_audio {
            for (at, taken) in taken.into_iter().enumerate() {
                assert_eq!(takes(at, audio(format)), taken, "{format} {at}");
            }
        }
        let docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
        for (at, taken) in [false, true, false, false].into_iter().enumerate() {
            assert_eq!(
                takes(at, file(docx, b"PK\x03\x04\0", "a.docx")),
                taken,
                "{at}"
            );
        }
        let heic = b"\0\0\0\x18ftypheic\0\0\0\0";
        for (at, taken) in [false, false, false, true].into_iter().enumerate() {
            assert_eq!(takes(at, image("image/jpeg", heic)), taken, "{at}");
        }
        // A server of open models says itself what it takes.
        let part = image("image/tiff", TIFF);
        assert_eq!(
            of(OpenaiChat, "127.0.0.1", "m", part.clone()),
            Ok(part.clone())
        );
        let why = of(OpenaiChat, "api.deepseek.com", "deepseek-chat", part);
        assert!(why.expect_err("no images").contains("text alone"));
        let large = image("image/png", &[PNG, &vec![0; 8 * 1024 * 1024]].concat());
        let why = of(
            Anthropic,
            "api.anthropic.com",
            "claude-opus-4-8",
            large.clone(),
        );
        assert!(why.expect_err("too large").contains("10485760"));
        assert!(of(Anthropic, "x.example", "claude-opus-4-8", large).is_ok());
    }

    #[test]
    fn a_part_is_told_by_its_place_and_later_ones_in_words() {
        let (wire, host, model) = TARGETS[2];
        let rules = resolve(wire, host, model, &[]);
        let turn = |role, parts| Turn { role, parts };
        let result = Part::ToolResult {
            tool_call_id: "c".to_owned(),
            content: vec![image("image/png", PNG), image("image/tiff", TIFF)],
            is_error: false,
        };
        let mut turns = vec![
            Turn::text(Role::User, "look"),
            turn(Role::Tool, vec![result]),
        ];
        let found = refused(&turns, wire, &rules).expect("a refusal");
        assert_eq!(found.place, (1, 0, Some(1)));
        fit_media(&mut turns, wire, &rules);
        assert_eq!(refused(&turns, wire, &rules), None);
        let Part::ToolResult { content, .. } = &turns[1].parts[0] else {
            panic!("a result");
        };
        assert_eq!(content[0], image("image/png", PNG));
        assert!(matches!(&content[1], Part::Text { text } if text.contains("image/tiff")));
    }
}
