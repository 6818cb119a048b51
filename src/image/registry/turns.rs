//! Pieces of one blob that several threads fetch at once, until its server ignores the ranges that
//! they ask for: from then on the pieces come out of one stream, each in its turn.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};

/// Who may read next. `S` is the stream that is read in turn.
pub struct Turns<S> {
    state: Mutex<State<S>>,
    changed: Condvar,
}

struct State<S> {
    /// Whether the server has ignored a range.
    in_turn: bool,
    /// All bytes before this one that are wanted have come in.
    next: u64,
    /// Pieces behind it that have come in: where they begin and end.
    early: BTreeMap<u64, u64>,
    /// A piece cannot be had, so that those behind it are never wanted.
    failed: bool,
    stream: Option<S>,
}

impl<S> Turns<S> {
    /// For a blob that is wanted from byte `from` on.
    pub fn new(from: u64) -> Self {
        Self {
            state: Mutex::new(State {
                in_turn: false,
                next: from,
                early: BTreeMap::new(),
                failed: false,
                stream: None,
            }),
            changed: Condvar::new(),
        }
    }

    /// Begins to fetch a piece. All pieces are begun from the first on, and each before one behind
    /// it is waited for.
    pub fn begin(&self, offset: u64, len: u64) -> Piece<'_, S> {
        Piece {
            turns: self,
            range: offset..offset + len,
            came_in: false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A piece on its way. When it is dropped before it came in, no piece behind it gets its turn.
pub struct Piece<'a, S> {
    turns: &'a Turns<S>,
    range: Range<u64>,
    came_in: bool,
}

impl<S> Piece<'_, S> {
    /// Whether it may be asked for at once, by its range.
    pub fn is_free(&self) -> bool {
        !self.turns.lock().in_turn
    }

    /// Waits until all before it is there, and takes the stream, which is not behind it.
    pub fn wait(&self) -> Result<Option<S>> {
        let mut state = self.turns.lock();
        state.in_turn = true;
        while state.next < self.range.start && !state.failed {
            let woken = self.turns.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        if state.failed {
            return Err(Error::Failed("a piece before this one is lacking".into()));
        }
        Ok(state.stream.take())
    }

    /// It is there; the stream is for the next one.
    pub fn came_in(mut self, stream: Option<S>) {
        self.came_in = true;
        let mut state = self.turns.lock();
        if stream.is_some() {
            state.stream = stream;
        }
        state.early.insert(self.range.start, self.range.end);
        let mut next = state.next;
        while let Some(end) = state.early.remove(&next) {
            next = end;
        }
        state.next = next;
        self.turns.changed.notify_all();
    }
}

impl<S> Drop for Piece<'_, S> {
    fn drop(&mut self) {
        if !self.came_in {
            self.turns.lock().failed = true;
            self.turns.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;

    /// Four threads fetch pieces of ten bytes; every third is had by its range until one is not.
    #[test]
    fn what_comes_out_of_the_stream_comes_in_order() {
        let turns = Turns::<u64>::new(0);
        let next = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::SeqCst);
                        if number >= 100 {
                            return;
                        }
                        let offset = number * 10;
                        let piece = turns.begin(offset, 10);
                        if piece.is_free() && number.is_multiple_of(3) {
                            piece.came_in(None);
                            continue;
                        }
                        let at = piece.wait().unwrap().unwrap_or(0);
                        assert!(at <= offset, "the stream is at {at}, behind {offset}");
                        piece.came_in(Some(offset + 10));
                    }
                });
            }
        });
        assert_eq!(turns.begin(1000, 10).wait().unwrap(), Some(1000));
    }

    #[test]
    fn who_waits_for_a_piece_that_fails_is_told() {
        // It is wanted from the middle on, as after a kill.
        let turns = Turns::<()>::new(500);
        let (first, second) = (turns.begin(500, 10), turns.begin(510, 10));
        assert_eq!(first.wait().unwrap(), None);
        thread::scope(|scope| {
            let waiting = scope.spawn(move || second.wait().map(drop));
            drop(first);
            assert!(waiting.join().unwrap().is_err());
        });
    }
}
