//! A loopback hub: speaks enough of the Hugging Face hub's protocol that clients, ours and the
//! official one, cannot tell the difference, and misbehaves where a script says so. Two origins:
//! the hub itself, and a storage host behind signed URLs that expire. It also speaks ModelScope.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test, bench and example uses another part"
)]

mod content;
mod deliver;
mod fault;
mod http;
mod modelscope;
mod origin;
mod pace;
mod repos;
mod server;
mod storage;
pub mod synthetic;

pub use content::Content;
pub use fault::{At, Fault};
pub use repos::Access;
pub use server::{Hub, Logged, Options};
