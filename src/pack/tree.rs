//! Which model, image or extra directory of the plan a file belongs to.

use serde::{Deserialize, Serialize};

/// A model, image or extra directory of the plan, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TreeId {
    /// A model.
    Model(usize),
    /// An image.
    Image(usize),
    /// An extra directory.
    Extra(usize),
}

/// From where on the journal must be forgotten when what comes in turns out to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    tree: TreeId,
    at: u64,
}

impl Mark {
    /// The mark after a file of `tree` began at byte `at` of the journal. One that is right or
    /// wrong `alone` takes none of those before it along.
    #[must_use]
    pub fn after(before: Option<Self>, tree: TreeId, alone: bool, at: u64) -> Self {
        match before {
            Some(mark) if mark.tree == tree && !alone => mark,
            _ => Self { tree, at },
        }
    }

    /// The byte of the journal to go back to when something of `tree` is wrong.
    #[must_use]
    pub fn of(self, tree: TreeId) -> Option<u64> {
        (self.tree == tree).then_some(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_right_alone_goes_back_one_file_and_the_rest_all() {
        let (model, image) = (TreeId::Model(0), TreeId::Image(0));
        let mark = Mark::after(None, model, true, 10);
        let mark = Mark::after(Some(mark), model, true, 20);
        assert_eq!(mark.of(model), Some(20));
        assert_eq!(mark.of(image), None);
        let mark = Mark::after(Some(mark), image, false, 30);
        let mark = Mark::after(Some(mark), image, false, 40);
        assert_eq!(mark.of(image), Some(30));
        let other = Mark::after(Some(mark), TreeId::Image(1), false, 50);
        assert_eq!(other.of(image), None);
        let layer = Mark::after(Some(mark), image, true, 60);
        assert_eq!(layer.of(image), Some(60));
    }
}
