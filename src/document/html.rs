//! HTML as Markdown: headings, paragraphs, lists, tables and code; what a page shows, without scripts and styles. Tags are
//! taken as they come and never nested by calls, so that no page is too deep.

use html5gum::emitters::default::DefaultEmitter;
use html5gum::{StartTag, Token, Tokenizer};

/// Elements whose content is not shown.
const HIDDEN: [&[u8]; 7] = [b"script", b"style", b"noscript", b"template", b"svg", b"head", b"iframe"];
/// What may stand in a head. A noscript or template there is not shown either.
const OF_HEADS: [&[u8]; 9] =
    [b"head", b"title", b"meta", b"link", b"base", b"script", b"style", b"noscript", b"template"];
/// Elements that begin a paragraph of their own.
const BLOCKS: [&[u8]; 20] = [
    b"p",
    b"div",
    b"section",
    b"article",
    b"main",
    b"header",
    b"footer",
    b"nav",
    b"aside",
    b"ul",
    b"ol",
    b"dl",
    b"dd",
    b"dt",
    b"table",
    b"blockquote",
    b"form",
    b"figure",
    b"figcaption",
    b"hr",
];
/// Levels a list is indented by at most.
const MAX_INDENT: usize = 8;

/// What a page shows, as Markdown; the title first, if it has no heading of the first level.
pub fn to_markdown(html: &str) -> String {
    let mut emitter = DefaultEmitter::default();
    // In scripts and styles `<` means nothing.
    emitter.naively_switch_states(true);
    let mut writer = Writer::default();
    let tokens = Tokenizer::new_with_emitter(html, emitter);
    for token in tokens.flatten() {
        match token {
            Token::StartTag(tag) => writer.open(&tag),
            Token::EndTag(tag) => writer.close(&tag.name),
            Token::String(text) => writer.text(&String::from_utf8_lossy(&text.value)),
            Token::Comment(_) | Token::Doctype(_) | Token::Error(_) => {}
        }
    }
    writer.finish()
}

/// What the lines to come belong to.
#[derive(Default)]
struct Writer {
    out: String,
    title: String,
    has_heading: bool,
    in_title: bool,
    /// The hidden element we are in, and how often it is open.
    hidden: Option<(Vec<u8>, usize)>,
    /// Open lists: the next number, or none for bullets.
    lists: Vec<Option<usize>>,
    in_pre: bool,
    /// Line breaks that are due before the next text.
    breaks: usize,
    /// What is due before the next text, after the line breaks.
    prefix: String,
    /// Whether a blank is due before the next text.
    blank: bool,
}

impl Writer {
    fn open(&mut self, tag: &StartTag<()>) {
        let name: &[u8] = &tag.name;
        if let Some((hidden, depth)) = &mut self.hidden {
            *depth += usize::from(hidden == name && !tag.self_closing);
            self.in_title |= hidden == b"head" && name == b"title";
            // The end of a head may be left out: what does not belong there ends it.
            if hidden != b"head" || OF_HEADS.contains(&name) {
                return;
            }
            self.hidden = None;
        }
        if HIDDEN.contains(&name) {
            if !tag.self_closing {
                self.hidden = Some((name.to_vec(), 1));
            }
            return;
        }
        match name {
            b"title" => self.in_title = true,
            b"br" => self.break_lines(1),
            b"pre" if !self.in_pre => {
                self.break_lines(2);
                self.prefix.push_str("```\n");
                self.in_pre = true;
            }
            b"ul" | b"ol" => {
                self.break_lines(if self.lists.is_empty() { 2 } else { 1 });
                self.lists.push((name == b"ol").then_some(1));
            }
            b"li" => self.item(),
            b"tr" => self.break_lines(1),
            b"td" | b"th" => self.cell(),
            [b'h', level @ b'1'..=b'6'] => {
                self.break_lines(2);
                self.has_heading |= *level == b'1';
                self.prefix = format!("{} ", "#".repeat(usize::from(level - b'0')));
            }
            _ if BLOCKS.contains(&name) => self.break_block(),
            _ => {}
        }
    }

    fn close(&mut self, name: &[u8]) {
        if name == b"title" {
            self.in_title = false;
        }
        if let Some((hidden, depth)) = &mut self.hidden {
            *depth -= usize::from(hidden == name);
            if *depth == 0 {
                self.hidden = None;
            }
            return;
        }
        match name {
            b"pre" if self.in_pre => {
                self.in_pre = false;
                if self.prefix.ends_with("```\n") {
                    self.prefix.clear();
                } else {
                    self.end_line();
                    self.out.push_str("```");
                    self.break_lines(2);
                }
            }
            b"ul" | b"ol" => {
                self.lists.pop();
                self.break_lines(if self.lists.is_empty() { 2 } else { 1 });
            }
            b"li" | b"tr" => self.break_lines(1),
            [b'h', b'1'..=b'6'] => self.break_lines(2),
            _ if BLOCKS.contains(&name) => self.break_block(),
            _ => {}
        }
    }

    /// A paragraph ends; inside an item only a line does.
    fn break_block(&mut self) {
        self.break_lines(if self.lists.is_empty() { 2 } else { 1 });
    }

    fn item(&mut self) {
        self.break_lines(1);
        let indent = "  ".repeat(self.lists.len().saturating_sub(1).min(MAX_INDENT));
        let mark = match self.lists.last_mut() {
            Some(Some(number)) => {
                *number += 1;
                format!("{}. ", *number - 1)
            }
            _ => "- ".to_owned(),
        };
        self.prefix = indent + &mark;
    }

    fn cell(&mut self) {
        if self.breaks == 0 && !self.out.is_empty() {
            self.out.push_str(" |");
            self.blank = true;
        }
    }

    fn break_lines(&mut self, count: usize) {
        if !self.in_pre {
            // A mark with nothing behind it is left out, but a paragraph in an item keeps the item's.
            if self.prefix.starts_with('#') {
                self.prefix.clear();
            }
            self.breaks = self.breaks.max(count);
            self.blank = false;
        } else if count == 1 {
            self.out.push('\n');
        }
    }

    /// Writes what is due before a text.
    fn begin_text(&mut self) {
        if self.out.is_empty() {
            self.breaks = 0;
        }
        for _ in 0..std::mem::take(&mut self.breaks) {
            self.out.push('\n');
        }
        self.out.push_str(&std::mem::take(&mut self.prefix));
    }

    fn end_line(&mut self) {
        if !self.out.ends_with('\n') {
            self.out.push('\n');
        }
    }

    fn text(&mut self, text: &str) {
        if self.in_title {
            self.title.push_str(text);
            return;
        }
        if self.hidden.is_some() {
            return;
        }
        if self.in_pre {
            self.begin_text();
            self.out.push_str(text);
            return;
        }
        self.blank |= text.starts_with(char::is_whitespace);
        for word in text.split_whitespace() {
            let begins_line = self.breaks > 0 || !self.prefix.is_empty() || self.out.is_empty();
            self.begin_text();
            if self.blank && !begins_line {
                self.out.push(' ');
            }
            self.out.push_str(word);
            self.blank = true;
        }
        self.blank &= text.ends_with(char::is_whitespace);
    }

    fn finish(mut self) -> String {
        if self.in_pre && self.prefix.is_empty() {
            self.end_line();
            self.out.push_str("```");
        }
        let title: Vec<&str> = self.title.split_whitespace().collect();
        if !self.has_heading && !title.is_empty() {
            self.out = format!("# {}\n\n{}", title.join(" "), self.out);
        }
        self.end_line();
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_becomes_what_it_shows() {
        let html = "<!doctype html><html><head><title>A  page</title><style>p { a < b }</style></head>
            <body><h2>First <em>part</em></h2><p>Some &amp; more<br>text.</p><script>if (a < b) { '<p>' }</script>
            <ul><li>one</li><li>two<ul><li>inner</li></ul></li></ul><ol><li><p>first</p></li><li>second</li></ol>
            <pre><code>let a = 1;\n  b();</code></pre><table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>
            <p>end</p></body></html>";
        let expected = "# A page\n\n## First part\n\nSome & more\ntext.\n\n- one\n- two\n  - inner\n\n1. first\n2. second\n\n```\nlet a = 1;\n  b();\n```\n\na | b\n1 | 2\n\nend\n";
        assert_eq!(to_markdown(html), expected);
    }

    #[test]
    fn a_title_is_not_doubled_and_broken_pages_are_read() {
        assert_eq!(to_markdown("<title>T</title><h1>H</h1>x"), "# H\n\nx\n");
        assert_eq!(to_markdown("a<b>b</b>c <i>d</i>\n e"), "abc d e\n");
        assert_eq!(to_markdown("<head><title>T</title><body>x"), "# T\n\nx\n");
        assert_eq!(to_markdown("<head><title>T</title><meta name=a><p>x<script>y</script>"), "# T\n\nx\n");
        assert_eq!(to_markdown("</ul></li></pre>x<p><h1></h1>y<pre>z"), "x\n\ny\n\n```\nz\n```\n");
        assert_eq!(to_markdown(""), "\n");
        assert_eq!(to_markdown("<svg><svg></svg>a</svg>b"), "b\n");
    }

    #[test]
    fn a_deep_page_is_read() {
        let deep = format!("{}x", "<div><ul><li>".repeat(200_000));
        assert!(to_markdown(&deep).ends_with("- x\n"));
    }
}
