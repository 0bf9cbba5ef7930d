//! A model's Markdown in a platform's own format, by a real parser (`pulldown-cmark`).

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// What words look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    Bold,
    Italic,
    Strike,
    /// Where it leads to.
    Link(String),
}

/// A platform's format.
pub trait Format {
    /// Adds text that means nothing to the format.
    fn text(&self, text: &str, out: &mut String);
    fn open(&self, mark: &Mark, out: &mut String);
    fn close(&self, mark: &Mark, out: &mut String);
    /// A piece of code within a line.
    fn code(&self, text: &str, out: &mut String);
    /// Lines of code.
    fn block(&self, language: &str, text: &str, out: &mut String);
    fn open_quote(&self, out: &mut String);
    fn close_quote(&self, out: &mut String);
    /// Whether a line of quoted text needs something at its beginning.
    fn quote_line(&self) -> &'static str {
        ""
    }
}

/// What of Markdown is understood.
pub fn options() -> Options {
    Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TABLES | Options::ENABLE_TASKLISTS
}

/// Schemes that a link may lead to; others are shown as text.
const SCHEMES: [&str; 4] = ["http://", "https://", "mailto:", "tel:"];

struct Writer<'a, F> {
    format: &'a F,
    out: String,
    /// Marks that are open, outermost first.
    marks: Vec<Mark>,
    /// Of each list that is open, the next number.
    lists: Vec<Option<u64>>,
    quotes: usize,
    /// Language and text of the code that is being read.
    block: Option<(String, String)>,
    /// Rows of the table that is being read.
    table: Option<Vec<Vec<String>>>,
    at_line_start: bool,
    /// A bullet was written, and nothing behind it yet.
    is_behind_bullet: bool,
}

/// Markdown in a format.
pub fn render<F: Format>(markdown: &str, format: &F) -> String {
    let mut writer = Writer {
        format,
        out: String::with_capacity(markdown.len() + markdown.len() / 8),
        marks: Vec::new(),
        lists: Vec::new(),
        quotes: 0,
        block: None,
        table: None,
        at_line_start: true,
        is_behind_bullet: false,
    };
    for event in Parser::new_ext(markdown, options()) {
        writer.event(event);
    }
    while let Some(mark) = writer.marks.pop() {
        writer.format.close(&mark, &mut writer.out);
    }
    let end = writer.out.trim_end().len();
    writer.out.truncate(end);
    writer.out
}

impl<F: Format> Writer<'_, F> {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => self.text(&text),
            Event::Code(text) => self.code(&text),
            Event::Html(text) | Event::InlineHtml(text) => self.text(&text),
            Event::InlineMath(text) | Event::DisplayMath(text) => self.text(&text),
            Event::FootnoteReference(name) => self.text(&format!("[{name}]")),
            Event::SoftBreak | Event::HardBreak => self.line(),
            Event::Rule => {
                self.gap();
                self.text("———");
                self.gap();
            }
            Event::TaskListMarker(done) => self.text(if done { "☑ " } else { "☐ " }),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Heading { level, .. } => {
                self.gap();
                self.open(Mark::Bold);
                if level == HeadingLevel::H1 {
                    self.at_line_start = false;
                }
            }
            Tag::BlockQuote(_) => {
                self.gap();
                if self.quotes == 0 {
                    self.format.open_quote(&mut self.out);
                }
                self.quotes += 1;
                self.at_line_start = true;
            }
            Tag::CodeBlock(kind) => {
                let language = match &kind {
                    CodeBlockKind::Fenced(info) => info.split_whitespace().next().unwrap_or(""),
                    CodeBlockKind::Indented => "",
                };
                self.block = Some((language.to_owned(), String::new()));
            }
            Tag::List(first) => {
                if self.lists.is_empty() {
                    self.gap();
                } else {
                    self.line();
                }
                self.lists.push(first);
            }
            Tag::Item => {
                if !self.at_line_start && !self.is_behind_bullet {
                    self.line();
                }
                let depth = self.lists.len().saturating_sub(1);
                let bullet = match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!("{}. ", *number - 1)
                    }
                    _ => "• ".to_owned(),
                };
                self.text(&format!("{}{bullet}", "  ".repeat(depth.min(8))));
                self.is_behind_bullet = true;
            }
            Tag::Emphasis => self.open(Mark::Italic),
            Tag::Strong => self.open(Mark::Bold),
            Tag::Strikethrough => self.open(Mark::Strike),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => {
                self.open(Mark::Link(dest_url.to_string()));
            }
            Tag::Table(_) => self.table = Some(Vec::new()),
            Tag::TableHead | Tag::TableRow => {
                if let Some(rows) = &mut self.table {
                    rows.push(Vec::new());
                }
            }
            Tag::TableCell => {
                if let Some(row) = self.table.as_mut().and_then(|rows| rows.last_mut()) {
                    row.push(String::new());
                }
            }
            Tag::Paragraph if !self.at_line_start && !self.is_behind_bullet => self.gap(),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(_) => {
                self.close();
                self.gap();
            }
            TagEnd::Paragraph if self.lists.is_empty() => self.gap(),
            TagEnd::BlockQuote(_) => {
                self.trim();
                self.quotes -= 1;
                if self.quotes == 0 {
                    self.format.close_quote(&mut self.out);
                }
                self.gap();
            }
            TagEnd::CodeBlock => {
                if let Some((language, text)) = self.block.take() {
                    self.gap();
                    let text = text.strip_suffix('\n').unwrap_or(&text);
                    self.format.block(&language, text, &mut self.out);
                    self.at_line_start = false;
                    self.gap();
                }
            }
            TagEnd::List(_) => {
                self.lists.pop();
                if self.lists.is_empty() {
                    self.gap();
                }
            }
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough => self.close(),
            TagEnd::Link | TagEnd::Image => self.close(),
            TagEnd::Table => {
                if let Some(rows) = self.table.take() {
                    self.gap();
                    let text = columns(&rows);
                    self.format.block("", &text, &mut self.out);
                    self.at_line_start = false;
                    self.gap();
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        if let Some((_, block)) = &mut self.block {
            block.push_str(text);
            return;
        }
        if let Some(rows) = &mut self.table {
            if let Some(cell) = rows.last_mut().and_then(|row| row.last_mut()) {
                cell.push_str(text);
            }
            return;
        }
        if text.is_empty() {
            return;
        }
        if self.at_line_start && self.quotes > 0 {
            self.out.push_str(self.format.quote_line());
        }
        self.format.text(text, &mut self.out);
        self.at_line_start = false;
        self.is_behind_bullet = false;
    }

    /// Code within a line, which no mark may hold.
    fn code(&mut self, text: &str) {
        if self.table.is_some() || self.block.is_some() {
            return self.text(text);
        }
        if self.marks.iter().any(|mark| matches!(mark, Mark::Link(_))) {
            return self.text(text);
        }
        let marks = std::mem::take(&mut self.marks);
        for mark in marks.iter().rev() {
            self.format.close(mark, &mut self.out);
        }
        if self.at_line_start && self.quotes > 0 {
            self.out.push_str(self.format.quote_line());
        }
        self.format.code(text, &mut self.out);
        for mark in &marks {
            self.format.open(mark, &mut self.out);
        }
        self.marks = marks;
        self.at_line_start = false;
        self.is_behind_bullet = false;
    }

    fn open(&mut self, mark: Mark) {
        if self.table.is_some() {
            return;
        }
        if self.at_line_start && self.quotes > 0 {
            self.out.push_str(self.format.quote_line());
            self.at_line_start = false;
        }
        let mark = match mark {
            // Kept, so that its end closes it; shown as plain words.
            Mark::Link(url) if !SCHEMES.iter().any(|scheme| url.starts_with(scheme)) => {
                Mark::Link(String::new())
            }
            mark => mark,
        };
        self.format.open(&mark, &mut self.out);
        self.marks.push(mark);
    }

    fn close(&mut self) {
        if self.table.is_none()
            && let Some(mark) = self.marks.pop()
        {
            self.format.close(&mark, &mut self.out);
        }
    }

    fn line(&mut self) {
        // A link's words are on one line: not every format lets them be on two.
        let is_in_link = self.marks.iter().any(|mark| matches!(mark, Mark::Link(_)));
        if self.table.is_some() || self.block.is_some() || is_in_link {
            return self.text(" ");
        }
        self.out.push('\n');
        self.at_line_start = true;
        self.is_behind_bullet = false;
    }

    /// Takes back what ends in nothing: spaces, lines, and a line of a quote that says nothing.
    fn trim(&mut self) {
        let trimmed = |text: &str| text.trim_end().len();
        self.out.truncate(trimmed(&self.out));
        let mark = self.format.quote_line().trim_end();
        let line = self.out.rfind('\n').map_or(0, |at| at + 1);
        if self.quotes > 0 && !mark.is_empty() && &self.out[line..] == mark {
            self.out.truncate(line);
            self.out.truncate(trimmed(&self.out));
        }
    }

    /// An empty line between blocks.
    fn gap(&mut self) {
        self.trim();
        if !self.out.is_empty() {
            self.out.push_str("\n\n");
        }
        self.at_line_start = true;
        self.is_behind_bullet = false;
    }
}

/// A table as lines of text.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
            .min(40)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join(" | ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}
