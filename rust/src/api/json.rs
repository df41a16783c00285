//! A JSON scanner for code that copies while it reads: it hands out raw slices, and builds no tree.
//! Messages are those of Go's decoder, because clients print them.

use std::borrow::Cow;

/// Nesting beyond this is refused: the scanner and its users recurse.
const DEPTH_MAX: u32 = 1_000;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum JsonError {
    #[error("unexpected end of JSON input")]
    End,
    #[error("invalid character {} {context}", quote(*found))]
    Unexpected { found: char, context: &'static str },
    #[error("exceeded max depth")]
    Depth,
}

fn quote(found: char) -> String {
    match found {
        '\'' => "'\\''".to_owned(),
        '"' => "'\"'".to_owned(),
        other => format!("'{}'", other.escape_debug()),
    }
}

/// What a value is, known from its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Object,
    Array,
    Text,
    Number,
    Boolean,
    Null,
}

impl Kind {
    /// The word of Go's decoder for a value of this kind.
    pub fn word(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::Text => "string",
            Self::Number => "number",
            Self::Boolean => "bool",
            Self::Null => "null",
        }
    }
}

/// A string as it stands in the source, quotes included.
#[derive(Debug, Clone, Copy)]
pub struct RawText<'a> {
    pub raw: &'a str,
    pub escaped: bool,
}

impl<'a> RawText<'a> {
    pub fn text(&self) -> Cow<'a, str> {
        let inner = self
            .raw
            .get(1..self.raw.len().saturating_sub(1))
            .unwrap_or("");
        if self.escaped {
            Cow::Owned(unescape(inner))
        } else {
            Cow::Borrowed(inner)
        }
    }
}

#[derive(Debug)]
pub struct Scanner<'a> {
    source: &'a str,
    at: usize,
    depth: u32,
}

impl<'a> Scanner<'a> {
    pub fn new(source: &'a str) -> Self {
        Self {
            source,
            at: 0,
            depth: 0,
        }
    }

    /// Skip white space and tell what comes.
    pub fn kind(&mut self) -> Result<Kind, JsonError> {
        match self.peek() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::Text),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Boolean),
            Some(b'n') => Ok(Kind::Null),
            _ => Err(self.unexpected("looking for beginning of value")),
        }
    }

    /// Enter an object or array whose first byte comes next.
    pub fn enter(&mut self) -> Result<(), JsonError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(JsonError::Depth);
        }
        self.at += 1;
        Ok(())
    }

    /// In an object: the next key, with its colon eaten, or None after the closing brace. `first` is false after the first call.
    pub fn key(&mut self, first: &mut bool) -> Result<Option<RawText<'a>>, JsonError> {
        let next = self.peek();
        if next == Some(b'}') {
            self.at += 1;
            self.depth -= 1;
            return Ok(None);
        }
        if !*first {
            if next != Some(b',') {
                return Err(self.unexpected("after object key:value pair"));
            }
            self.at += 1;
        }
        *first = false;
        if self.peek() != Some(b'"') {
            return Err(self.unexpected("looking for beginning of object key string"));
        }
        let key = self.text()?;
        if self.peek() != Some(b':') {
            return Err(self.unexpected("after object key"));
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// In an array: whether another element comes; the closing bracket is eaten.
    pub fn element(&mut self, first: &mut bool) -> Result<bool, JsonError> {
        let next = self.peek();
        if next == Some(b']') && *first {
            self.at += 1;
            self.depth -= 1;
            return Ok(false);
        }
        if !*first {
            if next == Some(b']') {
                self.at += 1;
                self.depth -= 1;
                return Ok(false);
            }
            if next != Some(b',') {
                return Err(self.unexpected("after array element"));
            }
            self.at += 1;
        }
        *first = false;
        Ok(true)
    }

    pub fn text(&mut self) -> Result<RawText<'a>, JsonError> {
        let start = self.at;
        let mut at = start + 1;
        let mut escaped = false;
        let bytes = self.source.as_bytes();
        loop {
            let rest = bytes.get(at..).unwrap_or(&[]);
            let Some(mut offset) = memchr::memchr2(b'"', b'\\', rest) else {
                self.at = bytes.len();
                return Err(JsonError::End);
            };
            let plain = rest.get(..offset).unwrap_or(&[]);
            if plain.iter().any(|byte| *byte < 0x20) {
                offset = plain.iter().position(|byte| *byte < 0x20).unwrap_or(offset);
            }
            at += offset;
            match bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    let raw = self.source.get(start..self.at).unwrap_or("\"\"");
                    return Ok(RawText { raw, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    at += self.escape(at + 1)?;
                }
                _ => {
                    self.at = at;
                    return Err(self.unexpected_here("in string literal"));
                }
            }
        }
    }

    /// The length of the escape whose character after the backslash stands at `at`, backslash included.
    fn escape(&mut self, at: usize) -> Result<usize, JsonError> {
        let bytes = self.source.as_bytes();
        match bytes.get(at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
            Some(b'u') => {
                for digit in at + 1..at + 5 {
                    if !bytes.get(digit).is_some_and(u8::is_ascii_hexdigit) {
                        self.at = digit;
                        return Err(self.unexpected_here("in \\u hexadecimal character escape"));
                    }
                }
                Ok(6)
            }
            _ => {
                self.at = at;
                Err(self.unexpected_here("in string escape code"))
            }
        }
    }

    pub fn number(&mut self) -> Result<&'a str, JsonError> {
        let start = self.at;
        let bytes = self.source.as_bytes();
        let mut at = start;
        if bytes.get(at) == Some(&b'-') {
            at += 1;
        }
        let whole = digits(bytes, at);
        let leading_zero = bytes.get(at) == Some(&b'0');
        if whole == 0 {
            self.at = at;
            return Err(self.unexpected_here("in numeric literal"));
        }
        at += if leading_zero { 1 } else { whole };
        if bytes.get(at) == Some(&b'.') {
            let fraction = digits(bytes, at + 1);
            if fraction == 0 {
                self.at = at + 1;
                return Err(self.unexpected_here("after decimal point in numeric literal"));
            }
            at += 1 + fraction;
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            at += 1;
            if matches!(bytes.get(at), Some(b'+' | b'-')) {
                at += 1;
            }
            let exponent = digits(bytes, at);
            if exponent == 0 {
                self.at = at;
                return Err(self.unexpected_here("in exponent of numeric literal"));
            }
            at += exponent;
        }
        self.at = at;
        Ok(self.source.get(start..at).unwrap_or("0"))
    }

    /// `true`, `false` or `null`.
    pub fn literal(&mut self) -> Result<&'a str, JsonError> {
        let rest = self.source.get(self.at..).unwrap_or("");
        let word = if rest.starts_with('t') {
            "true"
        } else if rest.starts_with('f') {
            "false"
        } else {
            "null"
        };
        if let Some(raw) = rest.get(..word.len())
            && raw == word
        {
            self.at += word.len();
            return Ok(raw);
        }
        let good = rest
            .bytes()
            .zip(word.bytes())
            .take_while(|(have, want)| have == want)
            .count();
        self.at += good;
        let context = match word {
            "true" => "in literal true",
            "false" => "in literal false",
            _ => "in literal null",
        };
        Err(self.unexpected_here(context))
    }

    /// Copy the next value without white space; its strings stay as they are.
    pub fn copy(&mut self, out: &mut Vec<u8>) -> Result<(), JsonError> {
        match self.kind()? {
            Kind::Object => {
                self.enter()?;
                out.push(b'{');
                let mut first = true;
                while let Some(key) = {
                    let begin = first;
                    let key = self.key(&mut first)?;
                    if key.is_some() && !begin {
                        out.push(b',');
                    }
                    key
                } {
                    write_raw(out, key);
                    out.push(b':');
                    self.copy(out)?;
                }
                out.push(b'}');
            }
            Kind::Array => {
                self.enter()?;
                out.push(b'[');
                let mut first = true;
                loop {
                    let begin = first;
                    if !self.element(&mut first)? {
                        break;
                    }
                    if !begin {
                        out.push(b',');
                    }
                    self.copy(out)?;
                }
                out.push(b']');
            }
            Kind::Text => {
                let text = self.text()?;
                write_raw(out, text);
            }
            Kind::Number => out.extend_from_slice(self.number()?.as_bytes()),
            Kind::Boolean | Kind::Null => out.extend_from_slice(self.literal()?.as_bytes()),
        }
        Ok(())
    }

    /// Pass over the next value.
    pub fn skip(&mut self) -> Result<(), JsonError> {
        match self.kind()? {
            Kind::Object => {
                self.enter()?;
                let mut first = true;
                while self.key(&mut first)?.is_some() {
                    self.skip()?;
                }
            }
            Kind::Array => {
                self.enter()?;
                let mut first = true;
                while self.element(&mut first)? {
                    self.skip()?;
                }
            }
            Kind::Text => {
                self.text()?;
            }
            Kind::Number => {
                self.number()?;
            }
            Kind::Boolean | Kind::Null => {
                self.literal()?;
            }
        }
        Ok(())
    }

    /// Pass over the next value and return it as it stands.
    pub fn raw(&mut self) -> Result<&'a str, JsonError> {
        self.peek();
        let start = self.at;
        self.skip()?;
        Ok(self.source.get(start..self.at).unwrap_or("null"))
    }

    /// Pass over the next value and return it, looking for nothing but its end: for what is known to be JSON, because it was encoded here.
    /// Of anything else it returns some piece, and does not fail before the source is at its end.
    pub fn leap(&mut self) -> Result<&'a str, JsonError> {
        let Some(begin) = self.peek() else {
            return Err(JsonError::End);
        };
        let start = self.at;
        let rest = self.source.as_bytes().get(start..).unwrap_or(&[]);
        let length = match begin {
            b'"' => text_end(rest, 0),
            b'{' | b'[' => container_end(rest),
            _ => rest
                .iter()
                .position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t')),
        };
        self.at = start + length.unwrap_or(rest.len());
        self.source.get(start..self.at).ok_or(JsonError::End)
    }

    /// Nothing but white space may follow.
    pub fn end(&mut self) -> Result<(), JsonError> {
        if self.peek().is_some() {
            Err(self.unexpected("after top-level value"))
        } else {
            Ok(())
        }
    }

    #[cfg(test)]
    fn raw_rest(&mut self) -> &'a str {
        self.peek();
        self.source.get(self.at..).unwrap_or("")
    }

    fn peek(&mut self) -> Option<u8> {
        let bytes = self.source.as_bytes();
        while matches!(bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn unexpected(&mut self, context: &'static str) -> JsonError {
        self.peek();
        self.unexpected_here(context)
    }

    fn unexpected_here(&self, context: &'static str) -> JsonError {
        match self
            .source
            .get(self.at..)
            .and_then(|rest| rest.chars().next())
        {
            Some(found) => JsonError::Unexpected { found, context },
            None => JsonError::End,
        }
    }
}

/// Where a string that begins at `at` is over.
fn text_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Where an object or array that begins at 0 is over.
fn container_end(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match bytes.get(at)? {
            b'"' => {
                at = text_end(bytes, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

fn digits(bytes: &[u8], at: usize) -> usize {
    bytes
        .get(at..)
        .unwrap_or(&[])
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count()
}

/// Write a string: verbatim when it has no escapes, else re-encoded, so that equal strings have equal bytes.
pub fn write_raw(out: &mut Vec<u8>, text: RawText<'_>) {
    if text.escaped {
        write_text(out, &text.text());
    } else {
        out.extend_from_slice(text.raw.as_bytes());
    }
}

/// Write `text` as a JSON string.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..=0x1f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// Resolve the escapes of a checked string; a lone surrogate becomes U+FFFD, as in Go.
fn unescape(inner: &str) -> String {
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        let (plain, escape) = rest.split_at(at);
        out.push_str(plain);
        let (resolved, length) = resolve(escape);
        out.push(resolved);
        rest = escape.get(length..).unwrap_or("");
    }
    out.push_str(rest);
    out
}

fn resolve(escape: &str) -> (char, usize) {
    match escape.as_bytes().get(1) {
        Some(b'b') => ('\u{8}', 2),
        Some(b'f') => ('\u{c}', 2),
        Some(b'n') => ('\n', 2),
        Some(b'r') => ('\r', 2),
        Some(b't') => ('\t', 2),
        Some(b'u') => {
            let unit = |from: usize| {
                escape
                    .get(from..from + 4)
                    .and_then(|hex| u32::from_str_radix(hex, 16).ok())
            };
            let high = unit(2).unwrap_or(0xfffd);
            if (0xd800..0xdc00).contains(&high) && escape.get(6..8) == Some("\\u") {
                let low = unit(8).unwrap_or(0);
                if (0xdc00..0xe000).contains(&low) {
                    let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                    return (
                        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
                        12,
                    );
                }
            }
            (
                char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER),
                6,
            )
        }
        Some(other) => (char::from(*other), 2),
        None => (char::REPLACEMENT_CHARACTER, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(source: &str) -> Result<String, String> {
        let mut scanner = Scanner::new(source);
        let mut out = Vec::new();
        scanner
            .copy(&mut out)
            .and_then(|()| scanner.end())
            .map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn copying_drops_white_space_and_normalises_escapes() {
        assert_eq!(
            copied(
                " { \"a\" : [ 1 , -2.5e+3 , \"\\u0041\\ud83d\\ude00\\ud800x\" ] ,\n\"b\":{ } } "
            )
            .unwrap(),
            "{\"a\":[1,-2.5e+3,\"A😀\u{fffd}x\"],\"b\":{}}"
        );
    }

    #[test]
    fn errors_read_as_gos() {
        let table = [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            (
                "{\"a\":1,}",
                "invalid character '}' looking for beginning of object key string",
            ),
            (
                "[1,]",
                "invalid character ']' looking for beginning of value",
            ),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            (
                "{\"a\":1 \"b\"}",
                "invalid character '\"' after object key:value pair",
            ),
            ("[1 2]", "invalid character '2' after array element"),
            ("nul1", "invalid character '1' in literal null"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("01", "invalid character '1' after top-level value"),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            (
                "apiVersion: v1",
                "invalid character 'a' looking for beginning of value",
            ),
        ];
        for (source, want) in table {
            assert_eq!(copied(source).unwrap_err(), want, "{source:?}");
        }
        assert_eq!(copied(&"[".repeat(5000)).unwrap_err(), "exceeded max depth");
    }

    #[test]
    fn leaping_finds_the_same_end_as_reading() {
        for value in [
            r#"{"a":[1,{"b":"}]\"\\"}],"c":{}}"#,
            r#""te\"xt""#,
            "-1.5e3",
            "true",
            "null",
            "[]",
            r#"[ [ ] , "]" ]"#,
        ] {
            for rest in ["", ",1", "}", "]", " ,"] {
                let source = format!(" {value}{rest}");
                let mut scanner = Scanner::new(&source);
                assert_eq!(scanner.leap().unwrap(), value, "{source}");
                assert_eq!(scanner.raw_rest(), rest.trim_start(), "{source}");
            }
        }
    }

    #[test]
    fn leaping_over_what_is_cut_short_ends_with_the_source() {
        for source in [r#"{"a":"#, r#""x"#, r#"["\"#, "[[]", ""] {
            let mut scanner = Scanner::new(source);
            let _ = scanner.leap();
            assert_eq!(scanner.raw_rest(), "", "{source}");
        }
    }
}
