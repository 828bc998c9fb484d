//! A shared HTTP cache (RFC 9110, 9111, 5861, 9211) for any `http` and `tower` service.
//!
//! [`policy`] decides, as pure functions of a request, a response and the time.

pub mod policy;
