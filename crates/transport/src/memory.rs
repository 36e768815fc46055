//! Shared memory: sealed files, mappings of them, and bounds-checked access.
//!
//! Reads offsets, hands on bytes and atomics. Every access is checked against the mapping's length, so nothing
//! outside this file needs `unsafe` to access the arena. Knows nothing of the layout.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// An anonymous file of `bytes` bytes that can neither shrink nor grow: truncation would be a SIGBUS for the other
/// side. Its pages take memory only once they are written.
pub(crate) fn sealed_file(name: &str, bytes: usize) -> io::Result<OwnedFd> {
    let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, bytes as u64)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

/// A shared mapping. The other process may write to it at any moment, so no reference to plain bytes inside is ever
/// made: bytes are copied in and out by pointer, words are atomics.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is plain memory that belongs to no thread; all access is by atomics or by copying, and who
// may copy where at which time is settled by the slot words.
unsafe impl Send for Mapping {}
// SAFETY: as above; shared access never makes references to plain bytes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `bytes` bytes of `file`, which must be at least that long.
    pub(crate) fn new(file: impl AsFd, bytes: usize) -> io::Result<Mapping> {
        let size = rustix::fs::fstat(&file)?.st_size;
        if u64::try_from(size).unwrap_or(0) < bytes as u64 || bytes == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "shared memory is shorter than it should be",
            ));
        }
        // SAFETY: a fresh mapping at an address that the kernel chooses replaces nothing; the file is at least
        // this long and sealed against shrinking, so every page is backed.
        let start = unsafe {
            mmap(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0)?
        };
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))?;
        Ok(Mapping { start, bytes })
    }

    /// Its length in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The address of `len` bytes at `offset`.
    ///
    /// # Panics
    /// If they are not inside the mapping: callers check external values before.
    pub(crate) fn at(&self, offset: usize, len: usize) -> *mut u8 {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.bytes),
            "{len} bytes at {offset} are outside of the mapping"
        );
        // SAFETY: `offset` is at most the length of the mapping, as was just checked.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// The word at `offset`, which must be a multiple of 4.
    pub(crate) fn u32(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4), "a word at {offset} is not aligned");
        // SAFETY: inside the mapping and aligned; atomics may be changed by others at any time, and this word is
        // accessed as an atomic only, by both processes.
        unsafe { AtomicU32::from_ptr(self.at(offset, 4).cast()) }
    }

    /// The word at `offset`, which must be a multiple of 8.
    pub(crate) fn u64(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8), "a word at {offset} is not aligned");
        // SAFETY: as for `u32`.
        unsafe { AtomicU64::from_ptr(self.at(offset, 8).cast()) }
    }

    /// Copies `data` to `offset`.
    pub(crate) fn write(&self, offset: usize, data: &[u8]) {
        let to = self.at(offset, data.len());
        // SAFETY: the target is inside the mapping, the source is ours and can't overlap it.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len()) }
    }

    /// Zeroes `len` bytes at `offset`.
    pub(crate) fn zero(&self, offset: usize, len: usize) {
        let to = self.at(offset, len);
        // SAFETY: the target is inside the mapping.
        unsafe { std::ptr::write_bytes(to, 0, len) }
    }

    /// Appends a copy of `len` bytes at `offset` to `out`. Concurrent writes of a hostile process may or may not be
    /// in the copy; the copy itself no longer changes.
    pub(crate) fn read_into(&self, offset: usize, len: usize, out: &mut Vec<u8>) {
        let from = self.at(offset, len);
        out.reserve(len);
        // SAFETY: the source is inside the mapping, `out` has room for `len` more bytes, which are all written
        // before its length says so. The two can't overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(from, out.as_mut_ptr().add(out.len()), len);
            out.set_len(out.len() + len);
        }
    }

    /// A copy of the `N` bytes at `offset`.
    pub(crate) fn read<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut out = [0; N];
        let from = self.at(offset, N);
        // SAFETY: the source is inside the mapping, the target is ours and `N` bytes long.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), N) }
        out
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and no pointer into it outlives its owner: batches and slots
        // hold the mappings that they point into. It can fail for wrong arguments only.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_memory_can_neither_shrink_nor_grow() {
        let file = sealed_file("test", 4096).unwrap();
        assert!(ftruncate(&file, 0).is_err());
        assert!(ftruncate(&file, 8192).is_err());
        assert!(fcntl_add_seals(&file, SealFlags::WRITE).is_err());
    }

    #[test]
    fn two_mappings_of_a_file_show_the_same_bytes() {
        let file = sealed_file("test", 4096).unwrap();
        let (one, other) = (Mapping::new(&file, 4096).unwrap(), Mapping::new(&file, 4096).unwrap());
        one.write(100, b"abc");
        let mut out = b"_".to_vec();
        other.read_into(100, 3, &mut out);
        assert_eq!(out, b"_abc");
        other.zero(100, 1);
        assert_eq!(&one.read::<3>(100), b"\0bc");
    }

    #[test]
    fn a_file_shorter_than_declared_is_refused() {
        let file = sealed_file("test", 100).unwrap();
        assert!(Mapping::new(&file, 4096).is_err());
    }

    #[test]
    #[should_panic(expected = "outside of the mapping")]
    fn access_outside_of_a_mapping_panics_before_it_happens() {
        let file = sealed_file("test", 4096).unwrap();
        Mapping::new(&file, 4096).unwrap().write(4095, b"ab");
    }
}
