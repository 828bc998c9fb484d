//! Reads what stands in the parentheses of `#[cached(…)]`.
//!
//! It decides which names are known and in what form their values are written. What a duration or a
//! fraction may be is checked by the library, when the function is compiled.

use proc_macro2::TokenStream as Tokens;
use quote::{ToTokens, quote};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Expr, Ident, Lit, LitFloat, LitStr, Token, parenthesized};

use crate::template::Template;

const LIFE: Kind = Kind { check: "life", allowed: "more than zero and at most ten years" };
const WINDOW: Kind = Kind { check: "window", allowed: "at most ten years" };
const TIMEOUT: Kind = Kind { check: "timeout", allowed: "more than zero and at most a day" };
const PAUSE: Kind = Kind { check: "pause", allowed: "at most a day" };
const FACTOR: Kind = Kind { check: "factor", allowed: "more than 0 and at most 100" };
const FRACTION: Kind = Kind { check: "fraction", allowed: "0 to 1" };

/// The options of loads that are a duration.
const DURATIONS: [(&str, Kind); 8] = [
    ("ttl", LIFE),
    ("negative_ttl", LIFE),
    ("time_to_idle", LIFE),
    ("stale_while_revalidate", WINDOW),
    ("stale_if_error", WINDOW),
    ("soft_timeout", TIMEOUT),
    ("load_timeout", TIMEOUT),
    ("retry_after", PAUSE),
];

/// Those that are a number.
const NUMBERS: [(&str, Kind); 2] = [("early_refresh", FACTOR), ("jitter", FRACTION)];

/// What a value may be.
#[derive(Clone, Copy)]
struct Kind {
    /// The library's function that checks it.
    check: &'static str,
    allowed: &'static str,
}

/// The options of one attribute.
pub(crate) struct Options {
    pub(crate) cache: Expr,
    pub(crate) key: Template,
    pub(crate) tags: Vec<Template>,
    /// Whether it is remembered that there is no value.
    pub(crate) negative_ttl: bool,
    /// The calls that set the options of the load, in their order.
    pub(crate) calls: Vec<Tokens>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self, Error> {
        let (mut cache, mut key, mut tags, mut all) = (None, None, None, None);
        let (mut calls, mut names) = (Vec::new(), Vec::<String>::new());
        while !input.is_empty() {
            let ident: Ident = input.parse()?;
            let name = ident.to_string();
            if names.contains(&name) {
                return Err(Error::new(ident.span(), format!("`{name}` stands twice")));
            }
            match name.as_str() {
                "cache" => cache = Some(value::<Expr>(input, &name, "an expression")?),
                "key" => {
                    let text = value(input, &name, "a text, as \"user:{id}\"")?;
                    key = Some(Template::new(text)?);
                }
                "tags" => {
                    if !input.peek(syn::token::Paren) {
                        return Err(
                            input.error("write the tags as tags(\"users\", \"team:{team}\")")
                        );
                    }
                    let content;
                    parenthesized!(content in input);
                    let list = Punctuated::<LitStr, Token![,]>::parse_terminated(&content)?;
                    tags = Some(list.into_iter().map(Template::new).collect::<Result<_, _>>()?);
                }
                "options" => {
                    let options: Expr = value(input, &name, "an expression")?;
                    all = Some(quote!(.options(#options)));
                }
                _ => calls.push(option(input, &ident, &name)?),
            }
            names.push(name);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let missing = |what| Error::new(input.span(), format!("`{what}` is missing"));
        Ok(Self {
            cache: cache.ok_or_else(|| missing("cache = …"))?,
            key: key.ok_or_else(|| missing("key = \"…\""))?,
            tags: tags.unwrap_or_default(),
            negative_ttl: names.iter().any(|name| name == "negative_ttl"),
            // Before the others, which it would replace.
            calls: all.into_iter().chain(calls).collect(),
        })
    }
}

/// The call that sets one option of a load.
fn option(input: ParseStream<'_>, ident: &Ident, name: &str) -> Result<Tokens, Error> {
    let find = |table: &[(&str, Kind)]| {
        table.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    };
    let call = |kind: Kind, value: &dyn ToTokens, shown: &str, form: &str| {
        let check = Ident::new(kind.check, ident.span());
        let message = format!("`{name}` is {shown}; allowed is {}{form}", kind.allowed);
        quote!(.#ident(const { ::tachikoma_cache::macros_support::#check(#value, #message) }))
    };
    if let Some(kind) = find(&DURATIONS) {
        let text: LitStr = value(input, name, "a duration, as \"30s\"")?;
        let form = ", as a number and its unit: 250ms, 30s, 5m, 2h, 1d";
        return Ok(call(kind, &text, &format!("{:?}", text.value()), form));
    }
    if let Some(kind) = find(&NUMBERS) {
        let number = match value(input, name, "a number, as 0.1")? {
            Lit::Float(number) => number.base10_digits().to_owned(),
            // As a float, which is what the library takes.
            Lit::Int(number) => format!("{}.0", number.base10_digits()),
            other => {
                return Err(Error::new(
                    other.span(),
                    format!("`{name} = …` needs a number, as 0.1"),
                ));
            }
        };
        let literal = LitFloat::new(&number, ident.span());
        return Ok(call(kind, &literal, &number, ""));
    }
    let known = DURATIONS.iter().chain(&NUMBERS).map(|(name, _)| *name);
    let known: Vec<_> = ["cache", "key", "tags", "options"].into_iter().chain(known).collect();
    let message = format!("`{name}` is not known; allowed are {}", known.join(", "));
    Err(Error::new(ident.span(), message))
}

/// What stands after `=`.
fn value<T: Parse>(input: ParseStream<'_>, name: &str, what: &str) -> Result<T, Error> {
    let wrong = |error: &Error| Error::new(error.span(), format!("`{name} = …` needs {what}"));
    input.parse::<Token![=]>().map_err(|error| wrong(&error))?;
    input.parse().map_err(|error| wrong(&error))
}
