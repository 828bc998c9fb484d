//! Reads key templates: text with `{argument}` in it.
//!
//! Decides that different arguments give different keys: each is escaped, and between two of them
//! must stand a `:`, which no escaped argument has.

use proc_macro2::{Span, TokenStream as Tokens};
use quote::quote;
use syn::{Error, Ident, LitStr};

/// A template and its parts in order.
pub(crate) struct Template {
    literal: LitStr,
    parts: Vec<Part>,
}

enum Part {
    Text(String),
    Argument(String),
}

impl Template {
    /// Reads a template; `{{` and `}}` are braces.
    pub(crate) fn new(literal: LitStr) -> Result<Self, Error> {
        let parts =
            parse(&literal.value()).map_err(|problem| Error::new(literal.span(), problem))?;
        Ok(Self { literal, parts })
    }

    /// The expression that makes the text from the function's arguments.
    pub(crate) fn expand(&self, arguments: &[Ident]) -> Result<Tokens, Error> {
        // An argument may have the same name.
        let text_of_key = Ident::new("text", Span::mixed_site());
        let mut pushes = Vec::new();
        for part in &self.parts {
            pushes.push(match part {
                Part::Text(text) => quote!(#text_of_key.push_str(#text);),
                Part::Argument(name) => {
                    let Some(argument) = arguments.iter().find(|argument| *argument == name) else {
                        return Err(Error::new(
                            self.literal.span(),
                            format!("`{name}` is not an argument of the function"),
                        ));
                    };
                    let push = quote!(::tachikoma_cache::macros_support::push_part);
                    quote!(#push(&mut #text_of_key, &#argument);)
                }
            });
        }
        Ok(quote!({
            let mut #text_of_key = ::std::string::String::new();
            #(#pushes)*
            #text_of_key
        }))
    }
}

fn parse(template: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = template.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '{' | '}' if rest.peek() == Some(&character) => {
                rest.next();
                text.push(character);
            }
            '{' => {
                let name: String = rest.by_ref().take_while(|c| *c != '}').collect();
                if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
                    return Err(format!("{{{name}}} is not the name of an argument"));
                }
                let after_another = matches!(parts.last(), Some(Part::Argument(_)));
                if after_another && !text.contains(':') {
                    return Err(format!(
                        "{{{name}}} needs a ':' before it, or two lists of arguments could give \
                         one key"
                    ));
                }
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(Part::Argument(name));
            }
            '}' => return Err("a single } has no { before it; write }} for a brace".to_owned()),
            _ => text.push(character),
        }
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(template: &str, expected: &str) {
        let shown = |parts: Vec<Part>| {
            let show = |part| match part {
                Part::Text(text) => format!("'{text}'"),
                Part::Argument(name) => format!("<{name}>"),
            };
            parts.into_iter().map(show).collect::<String>()
        };
        match parse(template) {
            Ok(parts) => assert_eq!(shown(parts), expected, "{template}"),
            Err(problem) => assert!(problem.contains(expected), "{template}: {problem}"),
        }
    }

    #[test]
    fn a_template_is_text_and_arguments() {
        check("user:{id}", "'user:'<id>");
        check("{a}:{b}", "<a>':'<b>");
        check("plain", "'plain'");
        check("{{x}}{a}", "'{x}'<a>");
    }

    #[test]
    fn what_could_give_one_key_for_two_is_refused() {
        check("{a}{b}", "needs a ':'");
        check("{a}-{b}", "needs a ':'");
        check("{}", "not the name");
        check("{a.b}", "not the name");
        check("{a", "<a>");
        check("a}", "single }");
    }
}
