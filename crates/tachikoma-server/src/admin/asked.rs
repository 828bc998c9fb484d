//! Reads the body of `POST /purge`; what is wrong in it is said by its name.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;

use crate::config::error::quoted;

/// What is asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) key: Option<String>,
    pub(super) pattern: Option<String>,
    pub(super) tag: Option<String>,
    pub(super) url: Option<String>,
    pub(super) prefix: Option<String>,
    /// Responses become stale instead of being removed.
    pub(super) soft: bool,
    pub(super) dry_run: bool,
}

impl<'de> Deserialize<'de> for Asked {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Asked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object, like {\"key\": \"user:42\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Asked, A::Error> {
        let mut asked = Asked::default();
        let mut seen = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let value: Value = map.next_value()?;
            match name.as_str() {
                "key" => asked.key = text(&name, value)?,
                "pattern" => asked.pattern = text(&name, value)?,
                "tag" => asked.tag = text(&name, value)?,
                "url" => asked.url = text(&name, value)?,
                "prefix" => asked.prefix = text(&name, value)?,
                "soft" => asked.soft = flag(&name, &value)?,
                "dry_run" => asked.dry_run = flag(&name, &value)?,
                _ => {
                    let known = "known are key, pattern, tag, url, prefix, soft and dry_run";
                    let said = format!("{} is not known here; {known}", quoted(&name));
                    return Err(A::Error::custom(said));
                }
            }
            if seen.contains(&name) {
                return Err(A::Error::custom(format!("{name} is there twice")));
            }
            seen.push(name);
        }
        Ok(asked)
    }
}

/// A text; `null` is as good as nothing.
fn text<E: Error>(name: &str, value: Value) -> Result<Option<String>, E> {
    match value {
        Value::String(text) => Ok(Some(text)),
        Value::Null => Ok(None),
        other => Err(refused(name, &other, "a text is allowed")),
    }
}

fn flag<E: Error>(name: &str, value: &Value) -> Result<bool, E> {
    value.as_bool().ok_or_else(|| refused(name, value, "true and false are allowed"))
}

fn refused<E: Error>(name: &str, value: &Value, allowed: &str) -> E {
    E::custom(format!("{name}: {} is refused; {allowed}", quoted(&value.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: &str) {
        match serde_json::from_str::<Asked>(body) {
            Ok(asked) => {
                assert_eq!(format!("{:?} {:?}", asked.key, asked.soft), expected, "{body}");
            }
            Err(error) => assert!(error.to_string().contains(expected), "{body}: {error}"),
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        check(r#"{"key":"a"}"#, r#"Some("a") false"#);
        check(r#"{"soft":true,"key":null}"#, "None true");
        check(r#"{"key":1}"#, r#"key: "1" is refused; a text is allowed"#);
        check(r#"{"tag":["a"]}"#, r#"tag: "[\"a\"]" is refused; a text is allowed"#);
        check(r#"{"soft":"yes"}"#, r#"soft: "\"yes\"" is refused; true and false are allowed"#);
        check(r#"{"dry_run":null}"#, r#"dry_run: "null" is refused"#);
        check(r#"{"key":"a","key":"b"}"#, "key is there twice");
        check(r#"{"Key":"a"}"#, r#""Key" is not known here; known are key, pattern"#);
        for body in ["[]", "null", "1", "\"x\""] {
            check(body, "expected an object, like {\"key\": \"user:42\"}");
        }
    }
}
