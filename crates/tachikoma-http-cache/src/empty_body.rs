//! How to make the body of one more request, kept without its type.
//!
//! Never decides when one is sent.

use std::{any::Any, sync::Arc};

/// A function that makes an empty body.
#[derive(Debug, Clone)]
pub(crate) struct EmptyBody(Arc<dyn Any + Send + Sync>);

impl EmptyBody {
    pub(crate) fn new<B: 'static>(make: fn() -> B) -> Self {
        Self(Arc::new(make))
    }

    /// The function, if it makes bodies of this type.
    pub(crate) fn get<B: 'static>(&self) -> Option<fn() -> B> {
        self.0.downcast_ref().copied()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_body_is_made_only_of_the_type_that_is_asked_for() {
        let known = EmptyBody::new(Bytes::new);
        assert!(known.get::<Bytes>().is_some_and(|make| make().is_empty()));
        assert!(known.get::<String>().is_none());
    }
}
