//! How small each kind of content becomes.

use crate::commands::{BUNDLE, measure, ratio, row};
use crate::data::{Kind, fresh, model, size_of};
use crate::goals::Goals;

/// MiB of each.
const MIB: usize = 256;

/// Packs a model of each kind.
pub fn run(goals: &mut Goals) {
    let limits = [
        (Kind::Bf16, 0.665),
        (Kind::Fp16, 0.845),
        (Kind::Fp32, 0.835),
        (Kind::Noise, 1.001),
    ];
    for (kind, limit) in limits {
        let data = model(kind, MIB);
        let raw = size_of(&data, "");
        let work = fresh("sizes");
        let (dir, data) = (work.display(), data.display());
        let cost = measure(&format!(
            "{BUNDLE} pack {dir}/bundle.toml --model-dir {data} -o {dir}/b.bundle"
        ));
        let share = ratio(size_of(&work.join("b.bundle"), "vol-"), raw);
        row(kind.name(), &cost, raw, &format!("stored/raw {share:.4}"));
        goals.at_most(&format!("stored/raw of {}", kind.name()), share, limit);
    }
}
