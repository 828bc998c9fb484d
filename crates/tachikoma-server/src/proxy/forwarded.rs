//! Reads the field `Forwarded` (RFC 7239 §4), from left to right and whole or not at all.
//!
//! From the right it could not be read: a quote that somebody left open would make a part of a
//! value look like an element. Pure: what is believed of it is decided in `forwarding`.

/// What one proxy says of the one that asked it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) node: Option<String>,
    pub(super) host: Option<String>,
    pub(super) proto: Option<String>,
}

/// The elements of one line; `None` if it is not what the RFC says.
pub(super) fn elements(line: &[u8]) -> Option<Vec<Element>> {
    let (mut elements, mut rest) = (vec![Vec::new()], line.trim_ascii());
    while let Some((first, behind)) = rest.split_first() {
        rest = match first {
            b',' => {
                elements.push(Vec::new());
                behind.trim_ascii_start()
            }
            b';' => behind.trim_ascii_start(),
            _ => {
                let (name, value, behind) = pair(rest)?;
                let element = elements.last_mut()?;
                if element.iter().any(|(known, _)| *known == name) {
                    return None;
                }
                element.push((name, value));
                let behind = behind.trim_ascii_start();
                if !matches!(behind.first(), None | Some(b',' | b';')) {
                    return None;
                }
                behind
            }
        };
    }
    // A list may have empty members (RFC 9110 §5.6.1).
    elements.retain(|element| !element.is_empty());
    Some(elements.into_iter().map(element).collect())
}

fn element(pairs: Vec<(String, String)>) -> Element {
    let mut element = Element::default();
    for (name, value) in pairs {
        match name.as_str() {
            "for" => element.node = Some(value),
            "host" => element.host = Some(value),
            "proto" => element.proto = Some(value),
            _ => {}
        }
    }
    element
}

/// `name=value` at the beginning: the name in lower case, the value without quotes, and the rest.
fn pair(text: &[u8]) -> Option<(String, String, &[u8])> {
    let (name, rest) = token(text)?;
    let rest = rest.strip_prefix(b"=")?;
    let (value, rest) = if rest.first() == Some(&b'"') { quoted(rest)? } else { token(rest)? };
    Some((name.to_ascii_lowercase(), value, rest))
}

fn token(text: &[u8]) -> Option<(String, &[u8])> {
    let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let length = text.iter().take_while(|byte| is_of_token(byte)).count();
    let (token, rest) = text.split_at(length);
    if token.is_empty() {
        return None;
    }
    Some((String::from_utf8(token.to_vec()).ok()?, rest))
}

/// A quoted string (RFC 9110 §5.6.4), of visible ASCII and spaces only.
fn quoted(text: &[u8]) -> Option<(String, &[u8])> {
    let mut value = String::new();
    let mut bytes = text.iter().enumerate().skip(1);
    while let Some((at, byte)) = bytes.next() {
        let byte = match byte {
            b'"' => return Some((value, text.get(at + 1..)?)),
            b'\\' => bytes.next()?.1,
            byte => byte,
        };
        if !(b' '..=b'~').contains(byte) {
            return None;
        }
        value.push(char::from(*byte));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Option<&[(&str, &str, &str)]>) {
        let text = |part: Option<String>| part.unwrap_or_else(|| "-".to_owned());
        let actual = elements(line.as_bytes()).map(|elements| {
            let parts = |e: Element| (text(e.node), text(e.host), text(e.proto));
            elements.into_iter().map(parts).collect::<Vec<_>>()
        });
        let actual: Option<Vec<_>> = actual.as_ref().map(|elements| {
            elements.iter().map(|(n, h, p)| (n.as_str(), h.as_str(), p.as_str())).collect()
        });
        assert_eq!(actual.as_deref(), expected, "{line:?}");
    }

    #[test]
    fn an_element_is_pairs_and_a_list_has_several() {
        check("", Some(&[]));
        check(" , ,;", Some(&[]));
        check(
            "for=192.0.2.43, for=198.51.100.17",
            Some(&[("192.0.2.43", "-", "-"), ("198.51.100.17", "-", "-")]),
        );
        check("For=192.0.2.60; PROTO=http;by=203.0.113.43", Some(&[("192.0.2.60", "-", "http")]));
        check(
            r#"for="[2001:db8::1]:80";host="a.test:81""#,
            Some(&[("[2001:db8::1]:80", "a.test:81", "-")]),
        );
        check(
            r#"for="a, for=b;\"",for=_x;new="1""#,
            Some(&[(r#"a, for=b;""#, "-", "-"), ("_x", "-", "-")]),
        );
        check("proto=https", Some(&[("-", "-", "https")]));
    }

    #[test]
    fn what_is_not_of_that_form_is_nothing() {
        for bad in [
            "for",
            "for=",
            "=a",
            "for = a",
            "for=a b",
            "for=[::1]",
            "for=1.2.3.4:80",
            r#"for="a"#,
            r#"for="a\"#,
            r#"for="a"b"#,
            r#"for="_x, for=1.2.3.4;host="a.test""#,
            "for=a;for=b",
            "for=a;FOR=b",
            "for=ä",
            "for=\"ä\"",
            "for=\"a\tb\"",
            "192.0.2.43",
        ] {
            check(bad, None);
        }
    }
}
