//! Buffers for raw chunks that are used again: fresh memory costs as much time as hashing it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

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

impl Buffers {
    /// A buffer of `len` bytes of any content.
    pub fn take(&self, len: usize) -> Buffer {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = free.pop().unwrap_or_default();
        drop(free);
        bytes.resize(len, 0);
        Buffer {
            bytes,
            home: self.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;

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
