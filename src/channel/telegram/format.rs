//! Telegram's HTML (<https://core.telegram.org/bots/api#html-style>).

use crate::channel::markdown::{Format, Mark};

/// The format.
pub struct Html;

/// Text that means nothing to the format.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    Html.text(text, &mut out);
    out
}

/// The words of a message without its tags.
pub fn plain(html: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(html.len()), html);
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..at]);
        rest = rest[at..].find('>').map_or("", |end| &rest[at + end + 1..]);
    }
    out.push_str(rest);
    out.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
}

impl Format for Html {
    fn text(&self, text: &str, out: &mut String) {
        for letter in text.chars() {
            match letter {
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '&' => out.push_str("&amp;"),
                '"' => out.push_str("&quot;"),
                '\0' => {}
                letter => out.push(letter),
            }
        }
    }

    fn open(&self, mark: &Mark, out: &mut String) {
        match mark {
            Mark::Bold => out.push_str("<b>"),
            Mark::Italic => out.push_str("<i>"),
            Mark::Strike => out.push_str("<s>"),
            Mark::Link(url) if url.is_empty() => {}
            Mark::Link(url) => {
                out.push_str("<a href=\"");
                self.text(url, out);
                out.push_str("\">");
            }
        }
    }

    fn close(&self, mark: &Mark, out: &mut String) {
        out.push_str(match mark {
            Mark::Bold => "</b>",
            Mark::Italic => "</i>",
            Mark::Strike => "</s>",
            Mark::Link(url) if url.is_empty() => "",
            Mark::Link(_) => "</a>",
        });
    }

    fn code(&self, text: &str, out: &mut String) {
        out.push_str("<code>");
        self.text(text, out);
        out.push_str("</code>");
    }

    fn block(&self, language: &str, text: &str, out: &mut String) {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "+-_#.".contains(c);
        // What is longer is no language, and would take a message's room.
        let language = match language.len() <= 20 && language.chars().all(is_word) {
            true => language,
            false => "",
        };
        out.push_str("<pre>");
        if !language.is_empty() {
            out.push_str("<code class=\"language-");
            out.push_str(language);
            out.push_str("\">");
        }
        self.text(text, out);
        out.push_str(if language.is_empty() {
            "</pre>"
        } else {
            "</code></pre>"
        });
    }

    fn open_quote(&self, out: &mut String) {
        out.push_str("<blockquote>");
    }

    fn close_quote(&self, out: &mut String) {
        out.push_str("</blockquote>");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::channel::markdown::render;
    use crate::channel::split::{messages, units};

    #[test]
    fn markdown_becomes_telegrams_html() {
        for (markdown, html) in [
            (
                "a **b** _c_ ~~d~~ `e<f`",
                "a <b>b</b> <i>c</i> <s>d</s> <code>e&lt;f</code>",
            ),
            ("# Title\n\ntext", "<b>Title</b>\n\ntext"),
            (
                "[x](https://a.b/?c=\"d\"&e)",
                "<a href=\"https://a.b/?c=&quot;d&quot;&amp;e\">x</a>",
            ),
            ("[x](javascript:alert(1))", "x"),
            (
                "- a\n- b\n  - c\n\n1. d\n2. e",
                "• a\n• b\n  • c\n\n1. d\n2. e",
            ),
            (
                "```rust\nlet a = 1 < 2;\n```",
                "<pre><code class=\"language-rust\">let a = 1 &lt; 2;</code></pre>",
            ),
            ("> a\n>> b", "<blockquote>a\n\nb</blockquote>"),
            ("**a `b` c**", "<b>a </b><code>b</code><b> c</b>"),
            ("<b>raw</b> & co", "&lt;b&gt;raw&lt;/b&gt; &amp; co"),
            (
                "| a | b |\n|---|---|\n| 1 | 22 |",
                "<pre>a | b\n1 | 22</pre>",
            ),
            ("- [x] done\n- [ ] open", "• ☑ done\n• ☐ open"),
        ] {
            assert_eq!(render(markdown, &Html), html, "{markdown}");
        }
    }

    /// Whether tags nest, each is one of Telegram's, and nothing else has a bracket.
    fn is_valid(html: &str) -> bool {
        let (mut open, mut rest) = (Vec::<&str>::new(), html);
        while let Some(at) = rest.find(['<', '>']) {
            if !rest[at..].starts_with('<') {
                return false;
            }
            let Some(end) = rest[at..].find('>') else {
                return false;
            };
            let tag = &rest[at + 1..at + end];
            match tag.strip_prefix('/') {
                Some(name) => {
                    if open.pop() != Some(name) {
                        return false;
                    }
                }
                None => {
                    let name = tag.split(' ').next().unwrap_or_default();
                    let known = ["b", "i", "s", "a", "code", "pre", "blockquote"];
                    let within_code = open.contains(&"code");
                    if !known.contains(&name) || within_code {
                        return false;
                    }
                    open.push(name);
                }
            }
            rest = &rest[at + end + 1..];
        }
        open.is_empty()
    }

    #[test]
    fn a_long_answer_is_cut_where_it_may_be() {
        let code: String = (0..800).map(|n| format!("let line_{n} = {n};\n")).collect();
        let words = "A sentence with a [link](https://example.com/a/b). ".repeat(300);
        let text = format!(
            "# Begin\n\n{words}\n\n```rust\n{code}```\n\n{}",
            "🙂".repeat(5000)
        );
        let messages = messages(&text, &Html, 4096);
        assert!(messages.len() > 5);
        let mut all = String::new();
        for message in &messages {
            assert!(units(message) <= 4096 && is_valid(message), "{message}");
            assert_eq!(
                message.matches("<pre>").count(),
                message.matches("</pre>").count()
            );
            all.push_str(&plain(message));
        }
        for n in [0, 399, 799] {
            assert!(all.contains(&format!("let line_{n} = {n};")));
        }
        assert_eq!(all.matches("https://example.com/a/b").count(), 300);
        assert_eq!(all.matches('🙂').count(), 5000);
    }

    proptest! {
        #[test]
        fn any_text_is_valid_within_any_limit(
            text in "([a-z ]{0,30}|[*_~`#>\\-\\[\\]()<>&|!\\\\\n]{1,4}|🙂|\u{301}|\u{a0}|\u{3000}|```|\n\n){0,60}",
            limit in 120usize..400,
        ) {
            prop_assert!(is_valid(&render(&text, &Html)), "{}", render(&text, &Html));
            for message in messages(&text, &Html, limit) {
                prop_assert!(units(&message) <= limit, "{} {message}", units(&message));
                prop_assert!(is_valid(&message), "{message}");
                prop_assert!(!message.trim().is_empty());
            }
        }
    }
}
