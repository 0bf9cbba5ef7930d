//! What a tool answered, within what a run can hold.

use super::hosted::cut;
use crate::model::Part;

/// What a model is told of a result, in bytes of text (`tools.md`).
const MAX_TEXT: usize = 256 * 1024;
/// Of the files of a result, in bytes as they are written down (base64): a photo of three megabytes.
const MAX_FILES: usize = 4 * 1024 * 1024;
/// Of the files of all results of a run: they are written down with each of its steps.
pub const MAX_FILES_OF_RUN: usize = 8 * 1024 * 1024;
/// What is told in place of an image and of a file that have no room in a result.
pub const TOO_LARGE: [&str; 2] = ["[an image that is too large]", "[a file that is too large]"];

/// What a tool answered.
#[derive(Debug, Default)]
pub struct Output {
    pub content: Vec<Part>,
    pub is_error: bool,
    pub suggested_replies: Option<Vec<String>>,
    /// The OAuth provider whose grant the smith lacks.
    pub lacks_connection: Option<String>,
}

impl Output {
    /// A failure, as the model is told it.
    pub fn error(why: impl Into<String>) -> Self {
        Self {
            content: vec![Part::Text { text: why.into() }],
            is_error: true,
            ..Self::default()
        }
    }
}

impl Output {
    /// Within the limits of one result, with a note of what was cut.
    pub fn cut(mut self) -> Self {
        let (mut left, mut cut_any) = (MAX_TEXT, false);
        for part in &mut self.content {
            let Part::Text { text } = part else { continue };
            if text.len() > left {
                text.truncate(cut(text, left).len());
                cut_any = true;
            }
            left -= text.len();
        }
        self.fit_files(MAX_FILES);
        self.content
            .retain(|part| !matches!(part, Part::Text { text } if text.is_empty()));
        if cut_any {
            self.content.push(Part::Text {
                text: format!("[cut: the result is larger than {} KiB]", MAX_TEXT / 1024),
            });
        }
        self
    }

    /// Tells of the files that do not fit into `room` bytes rather than carry them; answers with what
    /// is left of it.
    pub fn fit_files(&mut self, room: usize) -> usize {
        let mut left = room;
        for part in &mut self.content {
            let Some(size) = size_of_file(part) else {
                continue;
            };
            match left.checked_sub(size) {
                Some(rest) => left = rest,
                None => {
                    let [image, file] = TOO_LARGE;
                    let text = match part {
                        Part::Image { .. } => image,
                        _ => file,
                    };
                    *part = Part::Text {
                        text: text.to_owned(),
                    };
                }
            }
        }
        left
    }
}

fn size_of_file(part: &Part) -> Option<usize> {
    match part {
        Part::Image { source, .. } | Part::File { source, .. } => {
            Some(source.to_url().map_or(0, |url| url.len()))
        }
        _ => None,
    }
}

/// What the files in some parts take, in bytes as they are written down.
pub fn size_of_files(parts: &[Part]) -> usize {
    parts.iter().filter_map(size_of_file).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Source;

    fn text(text: String) -> Part {
        Part::Text { text }
    }

    fn image(bytes: usize) -> Part {
        let source = Source::Data {
            media_type: "image/png".to_owned(),
            data: "A".repeat(bytes),
        };
        Part::Image {
            source,
            detail: None,
        }
    }

    fn of(content: Vec<Part>) -> Output {
        Output {
            content,
            ..Output::default()
        }
    }

    #[test]
    fn a_large_result_is_cut_with_a_note() {
        let long = of(vec![text("ä".repeat(MAX_TEXT)), text("more".to_owned())]);
        let cut = long.cut();
        assert_eq!(cut.content.len(), 2);
        assert!(matches!(&cut.content[1], Part::Text { text } if text.starts_with("[cut")));
    }

    #[test]
    fn files_have_room_of_their_own() {
        let cut = of(vec![
            text("a".repeat(MAX_TEXT)),
            image(3 * 1024 * 1024),
            image(2 * 1024 * 1024),
            image(10),
        ])
        .cut();
        let is_image = |part: &Part| matches!(part, Part::Image { .. });
        let kept: Vec<bool> = cut.content.iter().map(is_image).collect();
        assert_eq!(kept, [false, true, false, true]);
        assert_eq!(cut.content[2], text(TOO_LARGE[0].to_owned()));
        let mut again = of(vec![image(100), image(1000)]);
        assert!(again.fit_files(500) < 400);
        assert!(size_of_files(&again.content) < 500);
    }
}
