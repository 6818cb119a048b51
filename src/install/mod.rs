//! From a bundle to every node: preflight, rounds of distribution, publishing.
