//! The model's file, for what the runtime does not expose of it.
//!
//! Reads a path, hands on the bytes and the messages in them. The file is mapped, so weights are not read unless
//! they are used. Knows nothing of the runtime, and ignores external data.

pub(crate) mod onnx;
pub(crate) mod wire;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::{self, NonNull};

/// A file mapped into memory.
#[derive(Debug)]
pub(crate) struct ModelFile {
    /// Dangling if the file is empty.
    start: NonNull<u8>,
    len: usize,
}

impl ModelFile {
    /// # Errors
    /// The system's, if the file can't be read.
    pub(crate) fn open(path: &Path) -> io::Result<ModelFile> {
        let file = File::open(path)?;
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        if len == 0 {
            return Ok(ModelFile { start: NonNull::dangling(), len });
        }
        let (rights, kind) = (libc::PROT_READ, libc::MAP_PRIVATE);
        // SAFETY: a new mapping, at an address of the system's choice, of a file that is open.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, rights, kind, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(ModelFile { start: NonNull::new(start.cast()).expect("no mapping begins at 0"), len })
    }

    /// Its contents.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is readable for `len` bytes and lives as long as `self`. A model's file is not
        // written to while it is loaded: the runtime, which maps files in the same way, relies on it too.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for ModelFile {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: the mapping is this one's, and nothing borrows it any more.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
        }
    }
}
