//! A model whose three chunks stand in three volumes.

use crate::bundles::Content;
use crate::weights::{Random, bf16, weights};

/// Its files: one that shrinks and two that do not.
pub fn three_volumes() -> Content {
    Content {
        volume_size: 1 << 20,
        ..Content::model([
            ("a.safetensors", bf16(&weights(1, 400_000))),
            ("b.bin", Random(2).bytes(800_000)),
            ("c.bin", Random(3).bytes(700_001)),
        ])
    }
}
