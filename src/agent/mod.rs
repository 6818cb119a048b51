//! The far side of install and cluster: a process on each node that does what the origin asks
//! over its SSH channel, and ends when that channel ends.

mod child;
mod collect;
mod data;
pub mod dial;
mod exec;
pub mod facts;
pub mod fleet;
mod http;
pub mod images;
pub mod link;
mod outbox;
pub mod protocol;
mod pulse;
pub mod serve;
pub mod start;
pub mod store;
pub mod tunnel;
