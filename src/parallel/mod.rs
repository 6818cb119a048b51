//! Work on many chunks at once with bounded memory, shared by packing and unpacking.

mod buffers;
mod ordered;
mod segments;

pub use buffers::{Aligned, Buffer, Buffers};
pub use ordered::{Ordered, in_order};
pub use segments::{Segment, segments};
