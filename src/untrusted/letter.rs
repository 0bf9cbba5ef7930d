//! HTML of mail as text that says what the HTML says: quotes as quotes, lists as lists, and where links
//! lead to.

use html2text::render::TextDecorator;

/// Links of many words of tracking are not shown; in bytes.
const MAX_URL: usize = 200;

/// How the parts of a letter are shown.
#[derive(Debug, Clone, Default)]
pub struct Letter {
    /// Of links that are open.
    urls: Vec<String>,
}

fn nothing() -> (String, ()) {
    (String::new(), ())
}

impl TextDecorator for Letter {
    type Annotation = ();

    fn decorate_link_start(&mut self, url: &str) -> (String, ()) {
        self.urls.push(url.to_owned());
        nothing()
    }

    fn decorate_link_end(&mut self) -> String {
        let url = self.urls.pop().unwrap_or_default();
        let leads = url.starts_with("http://") || url.starts_with("https://");
        let is_shown = leads && url.len() <= MAX_URL && !url.contains(char::is_whitespace);
        match is_shown {
            true => format!(" <{url}>"),
            false => String::new(),
        }
    }

    fn decorate_em_start(&self) -> (String, ()) {
        nothing()
    }

    fn decorate_em_end(&self) -> String {
        String::new()
    }

    fn decorate_strong_start(&self) -> (String, ()) {
        nothing()
    }

    fn decorate_strong_end(&self) -> String {
        String::new()
    }

    fn decorate_strikeout_start(&self) -> (String, ()) {
        nothing()
    }

    fn decorate_strikeout_end(&self) -> String {
        String::new()
    }

    fn decorate_code_start(&self) -> (String, ()) {
        nothing()
    }

    fn decorate_code_end(&self) -> String {
        String::new()
    }

    fn decorate_preformat_first(&self) {}

    fn decorate_preformat_cont(&self) {}

    fn decorate_image(&mut self, _src: &str, title: &str) -> (String, ()) {
        match title.trim() {
            "" => nothing(),
            title => (format!("[{title}]"), ()),
        }
    }

    fn header_prefix(&self, level: usize) -> String {
        "#".repeat(level) + " "
    }

    fn quote_prefix(&self) -> String {
        "> ".to_owned()
    }

    fn unordered_item_prefix(&self) -> String {
        "* ".to_owned()
    }

    fn ordered_item_prefix(&self, number: i64) -> String {
        format!("{number}. ")
    }

    fn make_subblock_decorator(&self) -> Self {
        Self::default()
    }
}
