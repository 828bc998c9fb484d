//! The binary as a process, a client that sends exact bytes, and an origin that answers them.

mod client;
mod origin;
mod process;

pub(crate) use client::{Answer, Connection, get, send};
pub(crate) use origin::Origin;
pub(crate) use process::{Tachikoma, run};
