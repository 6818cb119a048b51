//! Which model, image or extra directory of the plan a file belongs to.

use serde::{Deserialize, Serialize};

/// A model, image or extra directory of the plan, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TreeId {
    /// A model: each file is right or wrong on its own.
    Model(usize),
    /// An image: only as a whole is it right or wrong.
    Image(usize),
    /// An extra directory: each file is right or wrong on its own.
    Extra(usize),
}

/// From where on the journal must be forgotten when what comes in turns out to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    tree: TreeId,
    at: u64,
}

impl Mark {
    /// The mark after a file of `tree` began at byte `at` of the journal.
    #[must_use]
    pub fn after(before: Option<Self>, tree: TreeId, at: u64) -> Self {
        match before {
            Some(mark) if mark.tree == tree && matches!(tree, TreeId::Image(_)) => mark,
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
    fn a_model_goes_back_one_file_and_an_image_all() {
        let (model, image) = (TreeId::Model(0), TreeId::Image(0));
        let mark = Mark::after(None, model, 10);
        let mark = Mark::after(Some(mark), model, 20);
        assert_eq!(mark.of(model), Some(20));
        assert_eq!(mark.of(image), None);
        let mark = Mark::after(Some(mark), image, 30);
        let mark = Mark::after(Some(mark), image, 40);
        assert_eq!(mark.of(image), Some(30));
        assert_eq!(
            Mark::after(Some(mark), TreeId::Image(1), 50).of(image),
            None
        );
    }
}
