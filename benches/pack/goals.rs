//! The goals, and whether they are met.

use std::cmp::Ordering;

/// What was compared so far.
#[derive(Default)]
pub struct Goals(Vec<(bool, String)>);

impl Goals {
    /// A value that must not be larger than a limit.
    pub fn at_most(&mut self, what: &str, value: f64, limit: f64) {
        self.add(what, value, "<=", limit, Ordering::Greater);
    }

    /// A value that must not be smaller than a limit.
    pub fn at_least(&mut self, what: &str, value: f64, limit: f64) {
        self.add(what, value, ">=", limit, Ordering::Less);
    }

    fn add(&mut self, what: &str, value: f64, sign: &str, limit: f64, fails: Ordering) {
        let met = value.total_cmp(&limit) != fails;
        self.0
            .push((met, format!("{what:<58} {value:>8.3} {sign} {limit:.3}")));
    }

    /// Prints all of them.
    pub fn print(&self) {
        println!("goals");
        for (met, line) in &self.0 {
            println!("  {}  {line}", if *met { "met   " } else { "MISSED" });
        }
        let missed = self.0.iter().filter(|(met, _)| !met).count();
        println!("{} of {} goals missed", missed, self.0.len());
    }
}
