//! The binary as a process, a client that sends exact bytes, and an origin that answers them.

mod client;
pub(crate) mod h2;
mod origin;
mod process;

pub(crate) use client::{Answer, Connection, get, send};
pub(crate) use origin::{Origin, Seen, head};
pub(crate) use process::{Tachikoma, resident, run};
