//! The far side of install and cluster: a process on each node that does what the origin asks
//! over its SSH channel, and ends when that channel ends.

pub mod facts;
pub mod link;
pub mod protocol;
