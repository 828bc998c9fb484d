//! The `#[cached]` attribute of `tachikoma-cache`: `get_or_load` around a function.
//!
//! It decides nothing at run time: it writes the call that one would write by hand. The arguments
//! of the attribute are read in [`options`], key templates in [`template`].

mod options;
mod template;
#[cfg(test)]
mod tests;

use proc_macro::TokenStream;
use proc_macro2::{Span, TokenStream as Tokens};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Error, FnArg, Ident, ItemFn, Pat, ReturnType, Type, parse_macro_input};

use options::Options;

/// Caches the result of an async function.
///
/// ```text
/// #[cached(cache = CACHE, key = "user:{id}", ttl = "60s", tags("users", "team:{team}"))]
/// async fn user(id: u64, team: String) -> Result<User, sqlx::Error> {
///     load_user(id, &team).await
/// }
/// ```
///
/// - `cache`: an expression that gives a `Cache` or a reference to one.
/// - `key`: the key; `{name}` stands for an argument, escaped so that no two different argument
///   lists give one key. Two arguments need a `:` between them.
/// - `tags(…)`: the tags of the value, written as the key is.
/// - `ttl`: how long a value lives, as a number with `ms`, `s`, `m`, `h` or `d`. Default: the
///   cache's.
/// - `negative_ttl`: how long it is remembered that there is no value, for a function that returns
///   `Option<T>` or `Result<Option<T>, E>`. Without it `None` is a value as any other.
/// - `time_to_idle`, `stale_while_revalidate`, `stale_if_error`, `soft_timeout`, `load_timeout`,
///   `retry_after` (durations), `early_refresh`, `jitter` (numbers): as the methods of
///   `LoadOptions`. `options`: an expression that gives a `LoadOptions`, in place of the cache's;
///   what else is named changes it.
///
/// The function's result changes: `Result<T, E>` becomes `Result<Hit<T>, LoadError<E>>`, and any
/// other `T` becomes `Result<Hit<T>, LoadError<Infallible>>`, because a hit is shared with others,
/// and so is an error. With `negative_ttl` the hit is an `Option<Hit<T>>`. Loads run in a task of
/// their own, so arguments must be owned.
#[proc_macro_attribute]
pub fn cached(options: TokenStream, function: TokenStream) -> TokenStream {
    let options = parse_macro_input!(options as Options);
    let function = parse_macro_input!(function as ItemFn);
    expand(&options, &function).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(options: &Options, function: &ItemFn) -> Result<Tokens, Error> {
    if function.sig.asyncness.is_none() {
        return Err(Error::new(function.sig.fn_token.span(), "#[cached] needs an async function"));
    }
    let arguments = arguments(function)?;
    let key = options.key.expand(&arguments)?;
    let tags =
        options.tags.iter().map(|tag| tag.expand(&arguments)).collect::<Result<Vec<_>, _>>()?;
    // Arguments may have the same names as what stands beside them.
    let own = |name| Ident::new(name, Span::mixed_site());
    let (cache, key_text, all_tags, loading) = (own("cache"), own("key"), own("tags"), own("load"));
    // Made before the arguments move into the loader.
    let (tags, with_tags) = if tags.is_empty() {
        (None, None)
    } else {
        (Some(quote!(let #all_tags = [#(#tags),*];)), Some(quote!(.tags(#all_tags))))
    };
    let (value, error, result) = result_types(&function.sig.output);
    let (value, answer, load) = if options.negative_ttl {
        // So that the compiler points at a result that is no option.
        let at = function.sig.output.span();
        let value =
            quote_spanned!(at=> <#value as ::tachikoma_cache::macros_support::Optional>::Value);
        let hit = quote!(::core::option::Option<::tachikoma_cache::Hit<#value>>);
        (value, hit, quote!(get_or_load_optional))
    } else {
        (value.clone(), quote!(::tachikoma_cache::Hit<#value>), quote!(get_or_load))
    };
    let mut inner = function.clone();
    // It is async because a loader is, whether or not it waits.
    inner.attrs = vec![syn::parse_quote!(#[allow(clippy::unused_async)])];
    inner.vis = syn::Visibility::Inherited;
    // Functions have no scope of their own for names: nobody calls an argument so.
    inner.sig.ident = Ident::new("__tachikoma_uncached", function.sig.ident.span());
    let inner_name = &inner.sig.ident;
    let call = quote!(#inner_name(#(#arguments),*).await);
    let call = if result { call } else { quote!(::core::result::Result::Ok(#call)) };

    let (attributes, visibility) = (&function.attrs, &function.vis);
    let (of, calls) = (&options.cache, &options.calls);
    let mut signature = function.sig.clone();
    for argument in &mut signature.inputs {
        // Only the function inside changes it.
        if let FnArg::Typed(typed) = argument
            && let Pat::Ident(name) = &mut *typed.pat
        {
            name.mutability = None;
        }
    }
    signature.output = syn::parse_quote!(
        -> ::core::result::Result<
            #answer,
            ::tachikoma_cache::LoadError<#error>,
        >
    );
    Ok(quote! {
        #(#attributes)*
        #visibility #signature {
            #inner
            let #cache: &::tachikoma_cache::Cache = &#of;
            let #key_text: ::std::string::String = #key;
            #tags
            let #loading = #cache.#load::<#value, #error, _, _>(&#key_text, {
                move || async move { #call }
            });
            #loading #(#calls)* #with_tags .await
        }
    })
}

/// The names of the arguments.
fn arguments(function: &ItemFn) -> Result<Vec<Ident>, Error> {
    let argument = |argument: &FnArg| match argument {
        FnArg::Receiver(receiver) => Err(Error::new(
            receiver.span(),
            "#[cached] needs a function without self: its load runs in a task of its own",
        )),
        FnArg::Typed(typed) => match (&*typed.pat, &*typed.ty) {
            (_, Type::Reference(reference)) if !is_static(reference) => Err(Error::new(
                typed.ty.span(),
                "#[cached] needs owned arguments: its load runs in a task of its own",
            )),
            (Pat::Ident(name), _) => Ok(name.ident.clone()),
            (pattern, _) => {
                Err(Error::new(pattern.span(), "#[cached] needs arguments with a name"))
            }
        },
    };
    function.sig.inputs.iter().map(argument).collect()
}

fn is_static(reference: &syn::TypeReference) -> bool {
    reference.lifetime.as_ref().is_some_and(|lifetime| lifetime.ident == "static")
}

/// The value and the error type of the function, and whether it returns a `Result` (by its name, so
/// that `io::Result<T>` is one as well).
fn result_types(output: &ReturnType) -> (Tokens, Tokens, bool) {
    let infallible = quote!(::core::convert::Infallible);
    match output {
        ReturnType::Default => (quote!(()), infallible, false),
        ReturnType::Type(_, ty) => match &**ty {
            Type::Path(path)
                if path.path.segments.last().is_some_and(|last| last.ident == "Result") =>
            {
                let fallible = quote!(<#ty as ::tachikoma_cache::macros_support::Fallible>);
                (quote!(#fallible::Value), quote!(#fallible::Error), true)
            }
            _ => (quote!(#ty), infallible, false),
        },
    }
}
