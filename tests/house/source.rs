//! A Rust file, read closely enough for the rules: comments, strings, and what is compiled for tests only.

/// One Rust file.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with comments, strings and characters blanked; lines stay where they are.
    pub(crate) code: String,
    /// The text with comments blanked.
    pub(crate) uncommented: String,
    /// For each line, whether it is compiled for tests only.
    pub(crate) test_lines: Vec<bool>,
    /// Modules in separate files that are declared for tests only.
    test_modules: Vec<String>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (code, uncommented) = blank(text);
        let all = path.split('/').any(|part| part == "tests" || part == "benches");
        let lines = text.lines().count();
        let mut source = Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            uncommented,
            test_lines: vec![all; lines],
            test_modules: Vec::new(),
        };
        source.mark_tests();
        source
    }

    /// True if programs link it: the library's code, and the broker's.
    pub(crate) fn is_shipped(&self) -> bool {
        self.path.starts_with("src/") || self.path.starts_with("broker/src/")
    }

    pub(crate) fn is_test(&self, line: usize) -> bool {
        self.test_lines.get(line - 1).copied().unwrap_or(false)
    }

    /// What line comments say, with their lines.
    pub(crate) fn comments(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().zip(self.uncommented.lines()).enumerate();
        let commented = lines.filter(|(_, (line, uncommented))| line != uncommented);
        commented.filter_map(|(at, (line, _))| Some((at + 1, &line[line.find("//")?..])))
    }

    /// Words and signs of the code with their lines; `::` is one sign.
    pub(crate) fn tokens(&self) -> Vec<(usize, &str)> {
        let mut tokens = Vec::new();
        for (at, line) in self.code.lines().enumerate() {
            let mut rest = line.trim_start();
            while let Some(first) = rest.chars().next() {
                let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
                let length = match word.unwrap_or(rest.len()) {
                    0 if rest.starts_with("::") => 2,
                    0 => first.len_utf8(),
                    length => length,
                };
                tokens.push((at + 1, &rest[..length]));
                rest = rest[length..].trim_start();
            }
        }
        tokens
    }

    /// Finds `#[cfg(test)]`, and marks the item that follows.
    fn mark_tests(&mut self) {
        let owned = self.tokens().iter().map(|&(line, t)| (line, t.to_owned())).collect::<Vec<_>>();
        let tokens: Vec<_> = owned.iter().map(|(line, token)| (*line, token.as_str())).collect();
        for at in 0..tokens.len() {
            let words: Vec<_> = tokens[at..].iter().take(6).map(|token| token.1).collect();
            let only = words.starts_with(&["#", "[", "cfg", "(", "test", ")"])
                || words.starts_with(&["#", "[", "cfg", "(", "all", "("])
                    && tokens.get(at + 6).is_some_and(|token| token.1 == "test");
            if !only {
                continue;
            }
            let opens = |token: &(usize, &str)| matches!(token.1, "{" | ";");
            let Some(open) = tokens[at..].iter().position(opens).map(|offset| at + offset) else {
                continue;
            };
            let mut depth = 0;
            let mut end = open;
            if tokens[open].1 == ";" {
                if tokens[open - 2].1 == "mod" {
                    self.test_modules.push(tokens[open - 1].1.to_owned());
                }
            } else {
                for (offset, token) in tokens[open..].iter().enumerate() {
                    depth += i32::from(token.1 == "{") - i32::from(token.1 == "}");
                    end = open + offset;
                    if depth == 0 {
                        break;
                    }
                }
            }
            self.test_lines[tokens[at].0 - 1..tokens[end].0].fill(true);
        }
    }
}

/// Marks the files of modules that another file declares for tests only, and those below them.
pub(crate) fn mark_test_modules(sources: &mut [Source]) {
    let mut marked = Vec::new();
    for source in sources.iter() {
        let folder =
            match source.path.strip_suffix("/mod.rs").or(source.path.strip_suffix("/lib.rs")) {
                Some(folder) => folder,
                None => source.path.trim_end_matches(".rs"),
            };
        marked.extend(source.test_modules.iter().map(|module| format!("{folder}/{module}")));
    }
    for source in sources {
        let inside = |module: &String| {
            source
                .path
                .strip_prefix(module.as_str())
                .is_some_and(|r| r == ".rs" || r.starts_with('/'))
        };
        if marked.iter().any(inside) {
            source.test_lines.fill(true);
        }
    }
}

/// The text without comments, strings and characters, and the text without comments.
fn blank(text: &str) -> (String, String) {
    let (mut code, mut uncommented) = (String::new(), String::new());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let (length, kind) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), Kind::Comment)
        } else if rest.starts_with("/*") {
            (block_comment(rest), Kind::Comment)
        } else if let Some(length) = string(rest).filter(|_| first == '"' || !after_word) {
            (length, Kind::Text)
        } else if let Some(length) = character(rest) {
            (length, Kind::Text)
        } else {
            (first.len_utf8(), Kind::Code)
        };
        let (this, behind) = rest.split_at(length);
        let blanked = || this.chars().map(|c| if c == '\n' { c } else { ' ' }).collect::<String>();
        code.push_str(&if kind == Kind::Code { this.to_owned() } else { blanked() });
        uncommented.push_str(&if kind == Kind::Comment { blanked() } else { this.to_owned() });
        rest = behind;
    }
    (code, uncommented)
}

#[derive(PartialEq)]
enum Kind {
    Code,
    Text,
    Comment,
}

/// Length of a comment that may hold others.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let step = match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (1, 2),
            [b'*', b'/', ..] => (-1, 2),
            _ => (0, 1),
        };
        depth += step.0;
        at += step.1;
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of a string, plain, raw, of bytes or for C, if one begins here.
fn string(text: &str) -> Option<usize> {
    let prefix = text.find(|c| !"bcr".contains(c)).filter(|&length| length <= 2)?;
    let raw = text[..prefix].ends_with('r');
    let hashes = text[prefix..].bytes().take_while(|&b| b == b'#').count();
    if !text[prefix + hashes..].starts_with('"') || (hashes > 0 && !raw) {
        return None;
    }
    let start = prefix + hashes + 1;
    let end = format!("\"{}", "#".repeat(hashes));
    if raw {
        return Some(text[start..].find(&end).map_or(text.len(), |at| start + at + end.len()));
    }
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(start) {
        match byte {
            b'"' if !escaped => return Some(at + 1),
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    Some(text.len())
}

/// Length of a character, if one begins here and not a lifetime.
fn character(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    let mut chars = inside.char_indices();
    let (_, first) = chars.next()?;
    if first == '\\' {
        let end = inside[2..].find('\'')?;
        return Some(1 + 2 + end + 1);
    }
    let (end, next) = chars.next()?;
    (next == '\'').then_some(1 + end + 1)
}
