//! A hash for ids and shapes, which need no defence against being chosen.
//!
//! Reads numbers, hands back one. Knows nothing of what they stand for.

use std::hash::Hasher;

/// A hash for numbers that are counted up: ids need no defence against being chosen, and shapes that collide are
/// found out by `transport`, which refuses to mix them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // An odd number near 2^64 / φ; the rotation brings its good upper bits to where tables look.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(SPREAD).rotate_left(26);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }
}
