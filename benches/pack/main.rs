//! Speed and size of packing, verifying and unpacking, each beside what people do by hand, both
//! sides measured in this run. `cargo bench` runs all; `cargo bench -- local` one section.
//! Data and bundles go to `BENCH_DIR`, else below `target`; `BENCH_MIB` (2048) is their size.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench that cannot run shall stop"
)]

mod commands;
mod data;
mod goals;
mod hub;
mod local;
mod sizes;

#[path = "../../tests/support/hub/mod.rs"]
mod loopback;

use goals::Goals;

/// A section's name and what it measures.
type Section = (&'static str, fn(&mut Goals));

const SECTIONS: [Section; 3] = [
    ("sizes", sizes::run),
    ("local", local::run),
    ("hub", hub::run),
];

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let mut goals = Goals::default();
    for (name, run) in SECTIONS {
        if wanted.is_empty() || wanted.iter().any(|wish| wish == name) {
            println!("{name}");
            run(&mut goals);
        }
    }
    goals.print();
}
