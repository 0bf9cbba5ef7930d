//! Pictures that a model made. They stand in what it said as links to `data:` URLs, which is how clients
//! see them; sent back as words, one would be a million tokens that say nothing.

use memchr::memmem;

use crate::model::request::{Part, Role, Source, Turn};

/// What a link to a picture's bytes has in it.
const LINKED: &str = "](data:image/";
/// So many are shown again, the last ones.
const SHOWN: usize = 4;

/// Makes pictures of the links in what the assistant said: the last are shown, the others named.
pub fn show_again(turns: &mut [Turn]) {
    let mut left = SHOWN;
    for turn in turns.iter_mut().rev() {
        if turn.role != Role::Assistant || !turn.parts.iter().any(has_pictures) {
            continue;
        }
        let mut parts = Vec::with_capacity(turn.parts.len() + 2);
        for part in std::mem::take(&mut turn.parts).into_iter().rev() {
            match part {
                Part::Text { text } => parts.extend(apart(&text, &mut left).into_iter().rev()),
                part => parts.push(part),
            }
        }
        parts.reverse();
        turn.parts = parts;
    }
}

fn has_pictures(part: &Part) -> bool {
    matches!(part, Part::Text { text } if memmem::find(text.as_bytes(), LINKED.as_bytes()).is_some())
}

/// Words and pictures of what a model said, in their order; `None` where it shows no picture.
pub fn pictures_apart(text: &str) -> Option<Vec<Part>> {
    memmem::find(text.as_bytes(), LINKED.as_bytes())?;
    let mut left = usize::MAX;
    Some(apart(text, &mut left))
}

/// Words and pictures of a text, in its order.
fn apart(text: &str, left: &mut usize) -> Vec<Part> {
    let mut links: Vec<(usize, usize, &str)> = Vec::new();
    let mut from = 0;
    while let Some(found) = memmem::find(&text.as_bytes()[from..], LINKED.as_bytes()) {
        let at = from + found;
        let url = at + "](".len();
        let Some(length) = text[url..].find(')') else {
            break;
        };
        let begin = text[from..at].rfind('[').map_or(at, |label| {
            let label = from + label;
            match text[from..label].ends_with('!') {
                true => label - 1,
                false => label,
            }
        });
        links.push((begin, url + length + 1, &text[url..url + length]));
        from = url + length + 1;
    }
    let shown = links.len().saturating_sub(*left);
    *left = left.saturating_sub(links.len());
    let mut parts = Vec::with_capacity(2 * links.len() + 1);
    let mut words = String::new();
    let mut from = 0;
    for (at, (begin, end, url)) in links.into_iter().enumerate() {
        words.push_str(&text[from..begin]);
        from = end;
        // A title may stand behind the address.
        let url = url.split(' ').next().unwrap_or(url);
        match Source::from_url(url) {
            source @ Source::Data { .. } if at >= shown => {
                if !words.trim().is_empty() {
                    let text = std::mem::take(&mut words);
                    parts.push(Part::Text { text });
                }
                let detail = None;
                parts.push(Part::Image { source, detail });
            }
            _ => words.push_str("(a picture)"),
        }
    }
    words.push_str(&text[from..]);
    if !words.trim().is_empty() || parts.is_empty() {
        parts.push(Part::Text { text: words });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIXEL: &str = "data:image/png;base64,iVBORw0KGgo=";

    fn said(text: String) -> Turn {
        Turn::text(Role::Assistant, text)
    }

    fn shapes(turn: &Turn) -> Vec<String> {
        let shape = |part: &Part| match part {
            Part::Text { text } => text.clone(),
            Part::Image { source, .. } => source.to_url().unwrap_or_default(),
            other => format!("{other:?}"),
        };
        turn.parts.iter().map(shape).collect()
    }

    #[test]
    fn pictures_are_shown_as_such() {
        let mut turns = vec![
            said(format!("Here: ![a cat]({PIXEL}) and [this]({PIXEL}).")),
            Turn::text(Role::User, format!("![mine]({PIXEL})")),
            said("![cut](data:image/png;base64,iVB".to_owned()),
            said("No picture](data:image/x)".to_owned()),
        ];
        show_again(&mut turns);
        assert_eq!(shapes(&turns[0]), ["Here: ", PIXEL, " and ", PIXEL, "."]);
        assert_eq!(shapes(&turns[1]), [format!("![mine]({PIXEL})")]);
        assert_eq!(shapes(&turns[2]), ["![cut](data:image/png;base64,iVB"]);
        assert_eq!(shapes(&turns[3]), ["No picture(a picture)"]);
    }

    #[test]
    fn of_many_pictures_the_last_are_shown() {
        let five = format!("![]({PIXEL})").repeat(5);
        let mut turns = vec![said(five.clone()), said(format!("![]({PIXEL})"))];
        show_again(&mut turns);
        assert_eq!(shapes(&turns[1]), [PIXEL]);
        let first = shapes(&turns[0]);
        assert_eq!(first, ["(a picture)(a picture)", PIXEL, PIXEL, PIXEL]);
    }
}
