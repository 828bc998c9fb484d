//! Decides which keys a glob pattern matches, byte by byte, as Redis decides it.
//!
//! Pure: no store, no I/O, and no input for which it takes more than key × pattern steps. It
//! never expands a pattern and never guesses what its author meant: `{a,b}` and `[!a]` have no
//! special meaning in Redis, so they have none here.
//!
//! The rules are those of `KEYS` and `SCAN … MATCH`, checked against a live Redis 7.0.15:
//!
//! | Pattern | Matches |
//! |---|---|
//! | `*` | any bytes, also none |
//! | `?` | one byte (not one character: `é` needs two) |
//! | `[abc]`, `[a-c]` | one of these bytes; a reversed range is turned round |
//! | `[^a]` | one byte, any but these |
//! | `\x` | `x` itself, also inside brackets |
//! | anything else | itself |
//!
//! Awkward patterns, all valid in Redis and therefore here: `[abc` without its bracket is `[abc]`;
//! `[]` matches nothing and `[^]` any byte; the `]` of `[a-]` is the end of a range, which leaves
//! the set open; an escaped byte cannot begin a range; a lone `\` at the end is a backslash.
//! Ranges compare bytes as *signed*, as Redis does where C's `char` is signed (x86): in `[a-é]`
//! the first byte of `é` sorts below `a`. Ranges within ASCII are the same everywhere.
//!
//! Two differences remain, both on purpose. Redis answers that `**` does not match the empty key,
//! though `*` does; here both do, as both do in Redis once anything stands before them. And Redis
//! gives up, with "no match", after 1,000 nested `*`.

#[cfg(test)]
mod tests;

use std::fmt;

use crate::error::{Error, ErrorKind};

/// The longest pattern in bytes, equal to the longest key.
pub const MAX_PATTERN_BYTES: usize = 4096;

/// A compiled glob pattern.
///
/// ```
/// # use tachikoma_cache::glob::Glob;
/// let glob = Glob::new("user:[0-9]*:name")?;
/// assert!(glob.matches(b"user:42:name"));
/// assert!(!glob.matches(b"superuser:42:name"));
/// # Ok::<(), tachikoma_cache::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    tokens: Vec<Token>,
    literal_prefix: String,
    /// Where the last set starts if the pattern ends before its `]`.
    open_set: Option<usize>,
}

#[derive(Clone, PartialEq, Eq)]
enum Token {
    /// `*`; never twice in a row.
    Any,
    /// `?`
    One,
    Byte(u8),
    Set(Box<ByteSet>),
}

impl Glob {
    /// Compiles `pattern`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidPattern`] if it is longer than [`MAX_PATTERN_BYTES`]. Every other text
    /// is a valid pattern.
    pub fn new(pattern: &str) -> Result<Self, Error> {
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(Error::new(
                ErrorKind::InvalidPattern,
                format!("{} bytes; at most {MAX_PATTERN_BYTES} are allowed", pattern.len()),
            ));
        }
        let mut parser = Parser { rest: pattern.as_bytes(), tokens: Vec::new(), open_set: None };
        parser.run(pattern.len());
        let Parser { tokens, open_set, .. } = parser;
        let literal: Vec<u8> = tokens.iter().map_while(Token::literal).collect();
        // Wildcards are ASCII, so what stands before the first one ends with a whole character.
        let literal_prefix = String::from_utf8_lossy(&literal).into_owned();
        Ok(Self { text: pattern.to_owned(), tokens, literal_prefix, open_set })
    }

    /// The pattern `*`, which every key matches.
    pub fn everything() -> Self {
        let text = "*".to_owned();
        Self { text, tokens: vec![Token::Any], literal_prefix: String::new(), open_set: None }
    }

    /// Returns whether all of `key` matches.
    ///
    /// Takes at most `key.len()` × pattern length steps: after a mismatch only the last `*` can
    /// help, because a longer match of an earlier one would leave less for the rest.
    pub fn matches(&self, key: &[u8]) -> bool {
        let (mut token, mut at) = (0, 0);
        // Where to go on after a mismatch: behind the last `*`, one byte later in the key.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            let matched = match (self.tokens.get(token), key.get(at)) {
                (None, None) => return true,
                (Some(Token::Any), _) => {
                    token += 1;
                    retry = Some((token, at));
                    continue;
                }
                (Some(expected), Some(&byte)) => expected.accepts(byte),
                // The key has ended and the pattern has not: more of the key cannot help.
                (Some(_), None) => return false,
                (None, Some(_)) => false,
            };
            if matched {
                token += 1;
                at += 1;
            } else if let Some((after, from)) = &mut retry {
                *from += 1;
                (token, at) = (*after, *from);
            } else {
                return false;
            }
        }
    }

    /// The text that every matching key begins with, unescaped; empty if it begins with a
    /// wildcard.
    pub fn literal_prefix(&self) -> &str {
        &self.literal_prefix
    }

    /// Returns whether every key matches: the pattern is `*`, or several.
    pub fn is_match_all(&self) -> bool {
        self.tokens == [Token::Any]
    }

    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The pattern in a form that keeps its meaning when text follows it, for stores that put it
    /// inside a longer one: an open set is closed and a lone `\` at the end is escaped.
    ///
    /// ```
    /// # use tachikoma_cache::glob::Glob;
    /// assert_eq!(Glob::new("user:[ab")?.embeddable(), br"user:[\a\b]");
    /// # Ok::<(), tachikoma_cache::Error>(())
    /// ```
    pub fn embeddable(&self) -> Vec<u8> {
        let text = self.text.as_bytes();
        if let (Some(start), Some(Token::Set(set))) = (self.open_set, self.tokens.last()) {
            let mut closed = text.get(..start).unwrap_or_default().to_vec();
            set.write(&mut closed);
            return closed;
        }
        let mut closed = text.to_vec();
        let slashes = text.iter().rev().take_while(|&&byte| byte == b'\\').count();
        if slashes % 2 == 1 {
            closed.push(b'\\');
        }
        closed
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Glob").field(&self.text).finish()
    }
}

/// Escapes `part` so that, as a pattern, it matches only itself.
///
/// ```
/// # use tachikoma_cache::glob::escape;
/// assert_eq!(escape("what?[1]"), r"what\?\[1]");
/// ```
pub fn escape(part: &str) -> String {
    let mut escaped = String::with_capacity(part.len());
    for character in part.chars() {
        if matches!(character, '*' | '?' | '[' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

impl Token {
    fn accepts(&self, byte: u8) -> bool {
        match self {
            Self::Any | Self::One => true,
            Self::Byte(expected) => *expected == byte,
            Self::Set(set) => set.accepts(byte),
        }
    }

    fn literal(&self) -> Option<u8> {
        match self {
            Self::Byte(byte) => Some(*byte),
            _ => None,
        }
    }
}

struct Parser<'a> {
    rest: &'a [u8],
    tokens: Vec<Token>,
    open_set: Option<usize>,
}

impl Parser<'_> {
    fn run(&mut self, length: usize) {
        while let Some(byte) = self.next() {
            let token = match byte {
                b'*' if self.tokens.last() == Some(&Token::Any) => continue,
                b'*' => Token::Any,
                b'?' => Token::One,
                b'[' => {
                    let start = length - self.rest.len() - 1;
                    let (set, closed) = self.set();
                    self.open_set = (!closed).then_some(start);
                    Token::Set(Box::new(set))
                }
                b'\\' => Token::Byte(self.next().unwrap_or(b'\\')),
                literal => Token::Byte(literal),
            };
            self.tokens.push(token);
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    /// Reads a set after its `[`; the second value is false if the pattern ends before its `]`.
    fn set(&mut self) -> (ByteSet, bool) {
        let mut set = ByteSet::default();
        if self.rest.first() == Some(&b'^') {
            set.negated = true;
            self.next();
        }
        loop {
            let used = match *self.rest {
                [] => return (set, false),
                [b'\\', escaped, ..] => {
                    set.insert(escaped);
                    2
                }
                [b']', ..] => {
                    self.next();
                    return (set, true);
                }
                [from, b'-', to, ..] => {
                    set.insert_range(from, to);
                    3
                }
                [single, ..] => {
                    set.insert(single);
                    1
                }
            };
            self.rest = self.rest.get(used..).unwrap_or_default();
        }
    }
}

/// The bytes of one `[…]`.
#[derive(Clone, Default, PartialEq, Eq)]
struct ByteSet {
    members: [u128; 2],
    negated: bool,
}

impl ByteSet {
    fn insert(&mut self, byte: u8) {
        self.members[usize::from(byte >> 7)] |= 1 << (byte & 127);
    }

    fn insert_range(&mut self, from: u8, to: u8) {
        let (from, to) = (from.cast_signed(), to.cast_signed());
        for byte in from.min(to)..=from.max(to) {
            self.insert(byte.cast_unsigned());
        }
    }

    fn contains(&self, byte: u8) -> bool {
        self.members[usize::from(byte >> 7)] & (1 << (byte & 127)) != 0
    }

    fn accepts(&self, byte: u8) -> bool {
        self.contains(byte) != self.negated
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        if self.negated {
            out.push(b'^');
        }
        for byte in (0..=u8::MAX).filter(|&byte| self.contains(byte)) {
            // Escaped, no byte is the end of the set, its negation or part of a range.
            out.extend([b'\\', byte]);
        }
        out.push(b']');
    }
}
