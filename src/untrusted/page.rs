//! The readable part of a web page, which `dom_smoothie`, a kept port of Readability, finds.

use super::markup;

/// What a model is shown of a page, in bytes.
pub const MAX_TEXT: usize = 100 * 1024;

/// A page as text, with a note when not all of it is there.
pub fn readable(url: &str, html: &str) -> String {
    if markup::is_too_deep(html) {
        return shown(&markup::flat_text(html));
    }
    let article =
        dom_smoothie::Readability::new(html, Some(url), None).and_then(|mut found| found.parse());
    let text = match article {
        Ok(article) => format!("# {}\n\n{}", article.title, article.text_content),
        // Pages without an article are shown whole.
        Err(_) => html2text::config::plain_no_decorate()
            .string_from_read(html.as_bytes(), 100)
            .unwrap_or_default(),
    };
    shown(&text)
}

/// A text as far as a model is shown it.
pub fn shown(text: &str) -> String {
    let text = text.trim();
    let end = (0..=MAX_TEXT.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    let shown = &text[..end.unwrap_or(0)];
    match shown.len() < text.len() {
        true => format!("{shown}\n[the rest of the page is left out]"),
        false => shown.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_without_its_surroundings() {
        let paragraph = "Smiths forge iron, and the fire must be hot, says the master. ".repeat(20);
        let html = format!(
            "<html><head><title>Forging</title><script>alert(1)</script></head><body>\
             <nav><a href=/>Home</a></nav><article><h1>Forging</h1><p>{paragraph}</p>\
             </article></body></html>"
        );
        let text = readable("https://example.com/a", &html);
        assert!(text.contains("the fire must be hot"));
        assert!(
            !text.contains("alert(1)") && !text.contains("Home"),
            "{text}"
        );
    }

    #[test]
    fn long_text_is_cut_with_a_note() {
        let text = shown(&"ä".repeat(MAX_TEXT));
        assert!(text.len() < MAX_TEXT + 100 && text.ends_with("left out]"));
    }

    #[test]
    fn depth_costs_nothing() {
        let html = "<div>".repeat(50_000) + "The end.";
        assert_eq!(readable("https://example.com", &html), "The end.");
    }
}
