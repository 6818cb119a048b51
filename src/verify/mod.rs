//! Proving that a bundle is intact, and unpacking it without a cluster.
