//! The relay chain: chunks from node to node over pinned TLS, checked before they are kept.
