//! Buffers for chunks that are used again: fresh memory costs as much time as hashing it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use crate::fs::PAGE;

/// Buffers that are free. As many exist as were ever in use at once.
#[derive(Clone, Default)]
pub struct Buffers {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A buffer in use; it goes back when dropped.
pub struct Buffer {
    bytes: Vec<u8>,
    home: Buffers,
}

/// A buffer whose bytes begin at a page, as writing past the page cache wants it.
pub struct Aligned {
    buffer: Buffer,
    start: usize,
    len: usize,
}

impl Buffers {
    /// A buffer of `len` bytes of any content.
    pub fn take(&self, len: usize) -> Buffer {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = free.pop().unwrap_or_default();
        drop(free);
        if bytes.capacity() < len {
            // Fresh memory is zero already.
            bytes = vec![0; len];
        }
        bytes.resize(len, 0);
        Buffer {
            bytes,
            home: self.clone(),
        }
    }

    /// As [`Buffers::take`], aligned.
    #[must_use]
    pub fn aligned(&self, len: usize) -> Aligned {
        let buffer = self.take(len + PAGE);
        Aligned {
            start: buffer.as_ptr().align_offset(PAGE).min(PAGE),
            buffer,
            len,
        }
    }
}

impl Buffer {
    /// The vector itself, for calls that fill one.
    pub fn as_vec(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut free = self
            .home
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        free.push(bytes);
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aligned_buffer_begins_at_a_page() {
        let buffers = Buffers::default();
        for len in [0, 1, PAGE, 3 * PAGE + 5] {
            let buffer = buffers.aligned(len);
            assert_eq!((buffer.len(), buffer.as_ptr() as usize % PAGE), (len, 0));
        }
    }

    #[test]
    fn a_dropped_buffer_is_used_again() {
        let buffers = Buffers::default();
        let first = buffers.take(1000);
        let address = first.as_ptr();
        drop(first);
        let second = buffers.take(10);
        assert_eq!((second.len(), second.as_ptr()), (10, address));
    }
}
