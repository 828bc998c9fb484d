//! Reads what stands in the parentheses of `#[cached(…)]`.

use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Expr, Ident, LitStr, Token, parenthesized};

use crate::template::Template;

/// The options of one attribute.
pub(crate) struct Options {
    pub(crate) cache: Expr,
    pub(crate) key: Template,
    pub(crate) ttl: Option<LitStr>,
    pub(crate) tags: Vec<Template>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self, Error> {
        let (mut cache, mut key, mut ttl, mut tags) = (None, None, None, None);
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            let twice = |known: bool| {
                if known {
                    Err(Error::new(name.span(), format!("`{name}` stands twice")))
                } else {
                    Ok(())
                }
            };
            match name.to_string().as_str() {
                "cache" => {
                    twice(cache.is_some())?;
                    input.parse::<Token![=]>()?;
                    cache = Some(input.parse()?);
                }
                "key" => {
                    twice(key.is_some())?;
                    input.parse::<Token![=]>()?;
                    key = Some(Template::new(input.parse()?)?);
                }
                "ttl" => {
                    twice(ttl.is_some())?;
                    input.parse::<Token![=]>()?;
                    ttl = Some(input.parse()?);
                }
                "tags" => {
                    twice(tags.is_some())?;
                    let content;
                    parenthesized!(content in input);
                    let list = Punctuated::<LitStr, Token![,]>::parse_terminated(&content)?;
                    tags = Some(list.into_iter().map(Template::new).collect::<Result<_, _>>()?);
                }
                _ => {
                    return Err(Error::new(
                        name.span(),
                        format!("`{name}` is not known; allowed are cache, key, ttl, tags"),
                    ));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let missing = |what| Error::new(input.span(), format!("`{what}` is missing"));
        Ok(Self {
            cache: cache.ok_or_else(|| missing("cache = …"))?,
            key: key.ok_or_else(|| missing("key = \"…\""))?,
            ttl,
            tags: tags.unwrap_or_default(),
        })
    }
}
