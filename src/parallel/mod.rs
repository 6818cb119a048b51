//! Work on many chunks at once with bounded memory, shared by packing and unpacking.

mod buffers;
mod ordered;

pub use buffers::{Buffer, Buffers};
pub use ordered::{Ordered, in_order};
