//! Reads JSON (RFC 8259) into a tree: enough for `cargo metadata`, with no dependency.
//!
//! It reads whole documents only, up to a nesting depth, and reports where it could not go on.

use crate::Failure;

const DEEPEST: usize = 128;

/// One JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The value of a name in an object; `None` for other values and missing names.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => {
                members.iter().find(|(key, _)| key == name).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn array(&self) -> &[Self] {
        match self {
            Self::Array(elements) => elements,
            _ => &[],
        }
    }

    pub(crate) fn members(&self) -> &[(String, Self)] {
        match self {
            Self::Object(members) => members,
            _ => &[],
        }
    }
}

/// Quotes a text as a JSON string.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            control if control < ' ' => {
                quoted.push_str("\\u00");
                quoted.extend([u32::from(control) >> 4, u32::from(control) & 15].map(hex_digit));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

fn hex_digit(value: u32) -> char {
    char::from_digit(value, 16).unwrap_or('0')
}

/// Reads one document.
pub(crate) fn parse(text: &str) -> Result<Json, Failure> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.space();
    if reader.at == text.len() { Ok(value) } else { reader.fail("the end") }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Json, Failure> {
        if depth > DEEPEST {
            return self.fail("less nesting");
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Json::Text),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'n') => self.word("null", Json::Null),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, Failure> {
        let mut members = Vec::new();
        self.at += 1;
        while !self.ends_with(b'}', members.is_empty())? {
            self.space();
            let name = self.string()?;
            self.space();
            self.expect(b':')?;
            members.push((name, self.value(depth + 1)?));
        }
        Ok(Json::Object(members))
    }

    fn array(&mut self, depth: usize) -> Result<Json, Failure> {
        let mut elements = Vec::new();
        self.at += 1;
        while !self.ends_with(b']', elements.is_empty())? {
            elements.push(self.value(depth + 1)?);
        }
        Ok(Json::Array(elements))
    }

    /// Takes the closing bracket, or the comma before the next element.
    fn ends_with(&mut self, close: u8, first: bool) -> Result<bool, Failure> {
        self.space();
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(true);
        }
        if !first {
            self.expect(b',')?;
        }
        Ok(false)
    }

    fn string(&mut self) -> Result<String, Failure> {
        self.expect(b'"')?;
        let mut read = String::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(end) = rest.find(['"', '\\']) else {
                return self.fail("a closing quote");
            };
            read.push_str(&rest[..end]);
            self.at += end + 1;
            if rest.as_bytes()[end] == b'"' {
                return Ok(read);
            }
            read.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Result<char, Failure> {
        let Some(kind) = self.peek() else {
            return self.fail("an escape");
        };
        self.at += 1;
        Ok(match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return self.fail("an escape"),
        })
    }

    fn unicode(&mut self) -> Result<char, Failure> {
        let high = self.hex()?;
        let code = if (0xD800..0xDC00).contains(&high) {
            self.expect(b'\\')?;
            self.expect(b'u')?;
            let low = self.hex()?;
            0x1_0000 + ((high - 0xD800) << 10) + (low.wrapping_sub(0xDC00) & 0x3FF)
        } else {
            high
        };
        match char::from_u32(code) {
            Some(character) => Ok(character),
            None => self.fail("a character"),
        }
    }

    fn hex(&mut self) -> Result<u32, Failure> {
        let digits = self.text.get(self.at..self.at + 4);
        let Some(code) = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) else {
            return self.fail("four hexadecimal digits");
        };
        self.at += 4;
        Ok(code)
    }

    fn number(&mut self) -> Result<Json, Failure> {
        let rest = &self.text[self.at..];
        let end = rest
            .find(|character: char| !matches!(character, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'))
            .unwrap_or(rest.len());
        match rest[..end].parse() {
            Ok(number) => {
                self.at += end;
                Ok(Json::Number(number))
            }
            Err(_) => self.fail("a value"),
        }
    }

    fn word(&mut self, word: &str, value: Json) -> Result<Json, Failure> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(value)
        } else {
            self.fail("a value")
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Failure> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            self.fail(&format!("{:?}", char::from(byte)))
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn fail<T>(&self, expected: &str) -> Result<T, Failure> {
        Err(format!("not JSON: expected {expected} at byte {}", self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &Json) {
        assert_eq!(parse(text).as_ref(), Ok(expected), "{text}");
    }

    #[test]
    fn every_kind_of_value_is_read() {
        check(" null ", &Json::Null);
        check(
            "[true,false , -1.5e2]",
            &Json::Array(vec![Json::Bool(true), Json::Bool(false), Json::Number(-150.0)]),
        );
        check("{}", &Json::Object(vec![]));
        check(
            r#"{"a":{"b":[]}}"#,
            &Json::Object(vec![(
                "a".into(),
                Json::Object(vec![("b".into(), Json::Array(vec![]))]),
            )]),
        );
    }

    #[test]
    fn escapes_are_read_and_written() {
        check(
            r#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é""#,
            &Json::Text("\"\\/\u{8}\u{c}\n\r\té😀é".into()),
        );
        let awkward = "a\"b\\c\nd\u{1}é😀";
        check(&quote(awkward), &Json::Text(awkward.into()));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in
            ["", "{", "[1 2]", "[1,,2]", "\"a", "\"\\x\"", "\"\\ud800\"", "tru", "1 2", "{1:2}"]
        {
            assert!(parse(text).is_err(), "{text:?} was read");
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
    }
}
