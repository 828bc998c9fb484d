//! Decides whether the fields of a JSON body are valid, and says of each that is not what is
//! allowed there.
//!
//! Pure: a parsed object goes in, a checked value or all its errors come out. Strict: a field that
//! is unknown, given twice, `null` or of another type is an error, never ignored. The bounds are
//! those of [`limits`](super::limits).

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;

use super::{limits, problem::FieldError};

/// A JSON object as it was sent: in order, with every repetition of a name.
#[derive(Default)]
pub(crate) struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// What a text may be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Text {
    /// A title or a name.
    Line,
    /// Several lines, perhaps none.
    Lines {
        /// The most characters.
        most: usize,
    },
    /// An email address.
    Email,
    /// A password that is to be kept: never repeated in an error.
    NewPassword,
    /// A password that is to be checked: never repeated in an error.
    Password,
}

impl Text {
    /// What is allowed, to be read after "must be".
    fn allowed(self) -> String {
        match self {
            Self::Line => format!(
                "a text of 1 to {} characters without control characters that does not begin \
                 with white space",
                limits::TITLE_CHARS
            ),
            Self::Lines { most } => format!(
                "a text of at most {most} characters without control characters other than tab \
                 and line ends"
            ),
            Self::Email => format!(
                "an email address of at most {} characters: one @ with something on both sides, \
                 no white space",
                limits::EMAIL_CHARS
            ),
            Self::NewPassword => format!(
                "a text of {} to {} characters",
                limits::PASSWORD_MIN_CHARS,
                limits::PASSWORD_MAX_CHARS
            ),
            Self::Password => {
                format!("a text of at most {} characters", limits::PASSWORD_MAX_CHARS)
            }
        }
    }

    fn allows(self, text: &str) -> bool {
        // Bytes first: counting the characters of a megabyte is wasted work.
        let chars = |most: usize| {
            if text.len() > most * 4 { usize::MAX } else { text.chars().count() }
        };
        match self {
            Self::Line => {
                (1..=limits::TITLE_CHARS).contains(&chars(limits::TITLE_CHARS))
                    && !text.starts_with(char::is_whitespace)
                    && !text.contains(char::is_control)
            }
            Self::Lines { most } => {
                let refused = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
                chars(most) <= most && !text.contains(refused)
            }
            Self::Email => {
                let side = |side: &str| {
                    let refused = |c: char| c == '@' || c.is_whitespace() || c.is_control();
                    !side.is_empty() && !side.contains(refused)
                };
                chars(limits::EMAIL_CHARS) <= limits::EMAIL_CHARS
                    && text
                        .split_once('@')
                        .is_some_and(|(local, domain)| side(local) && side(domain))
            }
            Self::NewPassword => (limits::PASSWORD_MIN_CHARS..=limits::PASSWORD_MAX_CHARS)
                .contains(&chars(limits::PASSWORD_MAX_CHARS)),
            Self::Password => chars(limits::PASSWORD_MAX_CHARS) <= limits::PASSWORD_MAX_CHARS,
        }
    }

    fn is_secret(self) -> bool {
        matches!(self, Self::NewPassword | Self::Password)
    }
}

/// A body that is read from the fields of an object.
pub(crate) trait Payload: Sized {
    /// Takes each of its fields, and says which of them were not valid by way of `fields`.
    fn read(fields: &mut Fields) -> Option<Self>;
}

/// The fields of a body while they are taken.
pub(crate) struct Fields {
    given: Vec<(String, Value)>,
    known: Vec<&'static str>,
    errors: Vec<FieldError>,
}

impl Fields {
    /// Reads a whole body, or says everything that is wrong with it.
    pub(crate) fn read<T: Payload>(object: Object) -> Result<T, Vec<FieldError>> {
        let mut fields = Self { given: object.0, known: Vec::new(), errors: Vec::new() };
        let payload = T::read(&mut fields);
        let known = fields.known.join(", ");
        for (name, _) in &fields.given {
            let allowed = if fields.known.contains(&name.as_str()) {
                "given once".to_owned()
            } else {
                format!("left out: the fields are {known}")
            };
            fields.errors.push(FieldError::hidden(at(&short_name(name)), allowed));
        }
        match payload {
            Some(payload) if fields.errors.is_empty() => Ok(payload),
            _ => Err(fields.errors),
        }
    }

    /// Takes a text that must be there.
    pub(crate) fn text(&mut self, name: &'static str, rule: Text) -> Option<String> {
        let given = self.take(name);
        if given.is_none() {
            self.errors.push(FieldError::hidden(at(name), format!("given: {}", rule.allowed())));
        }
        self.checked_text(name, rule, given?)
    }

    /// Takes a text that may be left out.
    pub(crate) fn text_or_none(&mut self, name: &'static str, rule: Text) -> Option<String> {
        let given = self.take(name)?;
        self.checked_text(name, rule, given)
    }

    /// Takes one of the words `all`, which may be left out.
    pub(crate) fn word_or_none<T: Copy>(
        &mut self,
        name: &'static str,
        all: &[T],
        as_str: impl Fn(T) -> &'static str,
    ) -> Option<T> {
        let given = self.take(name)?;
        let found = all.iter().copied().find(|word| given.as_str() == Some(as_str(*word)));
        if found.is_none() {
            let words: Vec<_> = all.iter().map(|word| as_str(*word)).collect();
            let allowed = format!("one of {}", words.join(", "));
            self.errors.push(FieldError::new(at(name), shown(&given), allowed));
        }
        found
    }

    /// Takes a version, which may be left out.
    pub(crate) fn version_or_none(&mut self, name: &'static str) -> Option<u32> {
        let given = self.take(name)?;
        let version = whole_number(&given).filter(|n| *n >= 1);
        if version.is_none() {
            let allowed = format!("a whole number from 1 to {}, or left out", u32::MAX);
            self.errors.push(FieldError::new(at(name), shown(&given), allowed));
        }
        version
    }

    /// Notes that the body as a whole is not valid.
    pub(crate) fn refuse(&mut self, allowed: &'static str) {
        self.errors.push(FieldError::hidden("body", allowed));
    }

    /// Whether everything taken so far was valid.
    pub(crate) fn are_valid(&self) -> bool {
        self.errors.is_empty()
    }

    fn checked_text(&mut self, name: &'static str, rule: Text, given: Value) -> Option<String> {
        match given {
            Value::String(text) if rule.allows(&text) => Some(text),
            refused => {
                let error = if rule.is_secret() {
                    FieldError::hidden(at(name), rule.allowed())
                } else {
                    FieldError::new(at(name), shown(&refused), rule.allowed())
                };
                self.errors.push(error);
                None
            }
        }
    }

    /// Takes the first field with this name and leaves its repetitions.
    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        let index = self.given.iter().position(|(given, _)| given == name)?;
        Some(self.given.remove(index).1)
    }
}

/// A whole number, also one that is written with a fraction of zero: to JSON Schema (2020-12 §4.2.3
/// of the core) and to many clients `2.0` is the integer 2.
fn whole_number(value: &Value) -> Option<u32> {
    if let Some(number) = value.as_u64() {
        return u32::try_from(number).ok();
    }
    let number = value.as_f64().filter(|number| number.fract() == 0.0)?;
    // By way of its digits: a cast would round or saturate without a word.
    format!("{number:.0}").parse().ok()
}

fn at(name: &str) -> String {
    format!("body.{name}")
}

/// An unknown name, which has no bound of its own.
fn short_name(name: &str) -> String {
    name.chars().take(64).collect()
}

/// A refused value as the problem shows it: a text without its quotes, anything else as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One field of each kind.
    #[derive(Debug, PartialEq)]
    struct Form {
        title: String,
        password: String,
        version: Option<u32>,
    }

    impl Payload for Form {
        fn read(fields: &mut Fields) -> Option<Self> {
            let title = fields.text("title", Text::Line);
            let password = fields.text("password", Text::NewPassword);
            let version = fields.version_or_none("version");
            Some(Self { title: title?, password: password?, version })
        }
    }

    #[track_caller]
    fn check(json: &str, expected: &[(&str, Option<&str>)]) {
        let object = serde_json::from_str(json).unwrap();
        let errors = Fields::read::<Form>(object).err().unwrap_or_default();
        let actual: Vec<_> =
            errors.iter().map(|error| (error.field.as_str(), error.value.as_deref())).collect();
        assert_eq!(actual, expected, "{json}");
    }

    #[test]
    fn every_wrong_field_is_named_with_its_value() {
        let good = r#""title": "t", "password": "12345678""#;
        check(&format!("{{{good}}}"), &[]);
        for version in ["1", "1.0", "171e0", "4294967295", "4294967295.0"] {
            check(&format!(r#"{{{good}, "version": {version}}}"#), &[]);
        }
        check(
            &format!(r#"{{{good}, "version": 4294967296.0}}"#),
            &[("body.version", Some("4294967296.0"))],
        );
        for wrong in ["0", "-1", "1.5", "4294967296", "true", "null"] {
            let json = format!(r#"{{{good}, "version": {wrong}}}"#);
            check(&json, &[("body.version", Some(wrong))]);
        }
        check(&format!(r#"{{{good}, "versoin": 1}}"#), &[("body.versoin", None)]);
        check(&format!(r#"{{{good}, "title": "u"}}"#), &[("body.title", None)]);
        check("{}", &[("body.title", None), ("body.password", None)]);
        check(r#"{"title": "", "password": "12345678"}"#, &[("body.title", Some(""))]);
        check(r#"{"title": ["t"], "password": "12345678"}"#, &[("body.title", Some("an array"))]);
    }

    #[test]
    fn a_password_is_never_repeated() {
        for password in [r#""hunter2""#, "12345678901", r#"["hunter2"]"#, "null"] {
            let json = format!(r#"{{"title": "t", "password": {password}}}"#);
            check(&json, &[("body.password", None)]);
        }
    }

    #[track_caller]
    fn check_text(rule: Text, text: &str, expected: bool) {
        assert_eq!(rule.allows(text), expected, "{rule:?} {text:?}");
    }

    #[test]
    fn texts_are_counted_in_characters_and_hold_no_control_characters() {
        check_text(Text::Line, &"é".repeat(limits::TITLE_CHARS), true);
        check_text(Text::Line, &"é".repeat(limits::TITLE_CHARS + 1), false);
        check_text(Text::Line, &"👩‍🚀".repeat(50), true);
        for refused in ["", " ", " a", "\u{3000}a", "a\nb", "a\0b", "a\u{85}b", "\u{1b}[31m"] {
            check_text(Text::Line, refused, false);
        }
        check_text(Text::Line, "'; DROP TABLE missions; --", true);
        check_text(Text::Lines { most: 8 }, "a\r\n\tb", true);
        check_text(Text::Lines { most: 8 }, "", true);
        check_text(Text::Lines { most: 8 }, "a\0b", false);
        check_text(Text::Lines { most: 8 }, "123456789", false);
    }

    #[test]
    fn an_email_address_has_two_sides() {
        for allowed in ["a@b", "Ünï@exämple.org", "a+b@c.d"] {
            check_text(Text::Email, allowed, true);
        }
        let long = format!("{}@b", "a".repeat(253));
        for refused in ["", "a", "@", "a@", "@b", "a@b@c", "a b@c", "a@b\n", "a\0@b", &long] {
            check_text(Text::Email, refused, false);
        }
    }

    proptest! {
        #[test]
        fn a_text_that_is_allowed_fits_its_bound(text in "\\PC{0,300}|(.|\n){0,300}") {
            let chars = text.chars().count();
            if Text::Line.allows(&text) {
                prop_assert!((1..=limits::TITLE_CHARS).contains(&chars));
            }
            let most = limits::PASSWORD_MAX_CHARS;
            prop_assert_eq!(Text::Password.allows(&text), chars <= most);
        }
    }
}
