//! One registered region: a part of an object in `/dev/shm`.
//!
//! Reads keys and slices, hands on bytes. The client owns the memory and may change or shrink it at any moment: it is
//! read and written by the descriptor (`pread`, `pwrite`) and never mapped, so that a shrunk object is a short read
//! and not the end of this process, and what was checked is a copy that the client can't change.
//! Knows nothing of requests.

use std::fs::File;
use std::io::ErrorKind as Io;
use std::os::unix::fs::{FileExt, MetadataExt};

use bytes::Bytes;
use inferd_protocol::{Region, RegionSlice};
use inferd_types::{Error, ErrorKind, Result};
use rustix::fs::{Mode, OFlags};

/// Where the system keeps shared-memory objects.
const DIRECTORY: &str = "/dev/shm";
/// Longest name of an object: the system's own limit.
const NAME_MAX_BYTES: usize = 255;

/// A region and its object.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) region: Region,
    file: File,
}

impl Registered {
    /// Opens the object of `region`.
    ///
    /// # Errors
    /// `InvalidInput` where this user has none, or it is shorter than the region.
    pub(super) fn open(region: Region) -> Result<Registered> {
        let file = open(&region.key)?;
        let end = region.offset.checked_add(region.byte_size).filter(|_| region.byte_size > 0);
        let length = length(&file, &region)?;
        if end.is_none_or(|end| end > length) {
            return Err(invalid(format!(
                "shared memory '{}' has {length} bytes; a region of {} from {} on does not lie in it",
                region.key, region.byte_size, region.offset
            )));
        }
        Ok(Registered { region, file })
    }

    /// # Errors
    /// `InvalidInput` where `slice` does not lie in the region.
    pub(super) fn check(&self, slice: &RegionSlice) -> Result<()> {
        let end = slice.offset.checked_add(slice.bytes);
        if end.is_some_and(|end| end <= self.region.byte_size) {
            return Ok(());
        }
        Err(invalid(format!(
            "{} bytes from {} on do not lie in region '{}', which has {}",
            slice.bytes, slice.offset, slice.region, self.region.byte_size
        )))
    }

    /// A copy of `slice`, which has been checked.
    ///
    /// # Errors
    /// `InvalidInput` where the object has become too short.
    pub(super) fn read(&self, slice: &RegionSlice) -> Result<Bytes> {
        // Before memory is allocated, which a region that shrank does not need.
        self.check_length(slice.offset, slice.bytes)?;
        let mut data = vec![0; slice.bytes as usize];
        self.file
            .read_exact_at(&mut data, self.region.offset + slice.offset)
            .map_err(|error| self.failed("read", &error))?;
        Ok(data.into())
    }

    /// Copies `data` to the beginning of `slice`, which has been checked and is as long at least.
    ///
    /// # Errors
    /// `InvalidInput` where the object has become too short.
    pub(super) fn write(&self, slice: &RegionSlice, data: &[u8]) -> Result<()> {
        // A write past the end would make the object longer, which is not what its owner asked for.
        self.check_length(slice.offset, data.len() as u64)?;
        self.file
            .write_all_at(data, self.region.offset + slice.offset)
            .map_err(|error| self.failed("written", &error))
    }

    fn check_length(&self, offset: u64, bytes: u64) -> Result<()> {
        if self.region.offset + offset + bytes <= length(&self.file, &self.region)? {
            return Ok(());
        }
        Err(self.shrunk())
    }

    fn failed(&self, what: &str, error: &std::io::Error) -> Error {
        if error.kind() == Io::UnexpectedEof {
            return self.shrunk();
        }
        invalid(format!("region '{}' cannot be {what}: {error}", self.region.name))
    }

    fn shrunk(&self) -> Error {
        invalid(format!(
            "the memory of region '{}' is shorter than when it was registered; keep its size while it is in use",
            self.region.name
        ))
    }
}

/// Opens the shared-memory object `key`, which must belong to the user that this process runs as.
fn open(key: &str) -> Result<File> {
    let name = key.strip_prefix('/').unwrap_or(key);
    if name.is_empty()
        || name.len() > NAME_MAX_BYTES
        || name.contains(['/', '\0'])
        || [".", ".."].contains(&name)
    {
        return Err(invalid(
            "the key of shared memory is the name of an object in /dev/shm: 1 to 255 bytes, no '/' but the first",
        ));
    }
    // No link: it may lead to any file. (`rustix::shm::open` follows them.) And no worker inherits the descriptor.
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(format!("{DIRECTORY}/{name}"), flags, Mode::empty()).map_err(|error| {
        invalid(format!("shared memory '{key}' cannot be opened: {error}; create it before it is registered"))
    })?;
    let file = File::from(opened);
    let metadata = file.metadata().map_err(|error| invalid(format!("shared memory '{key}': {error}")))?;
    if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(invalid(format!(
            "shared memory '{key}' is not one of the user that the server runs as; let that user create it"
        )));
    }
    Ok(file)
}

pub(super) fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

fn length(file: &File, region: &Region) -> Result<u64> {
    let metadata =
        file.metadata().map_err(|error| invalid(format!("shared memory '{}': {error}", region.key)))?;
    Ok(metadata.len())
}
