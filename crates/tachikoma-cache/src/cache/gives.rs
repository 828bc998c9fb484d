//! What the loader of a [`Load`](crate::Load) gives: the marks that tell its kinds apart. They are
//! only ever named where a `Load` is kept before it is awaited.

/// A value ([`Cache::get_or_load`](crate::Cache::get_or_load)).
#[derive(Debug)]
pub struct Value;

/// A value or that there is none
/// ([`Cache::get_or_load_optional`](crate::Cache::get_or_load_optional)).
#[derive(Debug)]
pub struct Optional;

/// A [`Loaded`](crate::Loaded), from what is at hand
/// ([`Cache::get_or_load_with`](crate::Cache::get_or_load_with)).
#[derive(Debug)]
pub struct Adaptive;
