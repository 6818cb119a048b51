//! From a bundle to every node: preflight, rounds of distribution, activation.

pub mod activate;
pub mod chain;
pub mod dial;
pub mod distribute;
mod pace;
pub mod preflight;
pub mod reach;
pub mod round;
mod rounds;
mod run;
mod schedule;
#[cfg(test)]
mod simulation;
pub mod source;
pub mod space;
pub mod survey;
mod tunnel;
mod ways;
