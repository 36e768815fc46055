//! Releases memory that only loading needed.
//!
//! Reads the process's memory map, hands pages back to the system. Knows nothing of models: it may be called at any
//! time, and is useful once, after loading.

use std::path::Path;

/// Releases free memory of the allocator, and unmaps the code that `library` ran while it started.
///
/// A model is parsed, optimized and packed in memory that is free afterwards; the runtime's start executes once
/// some 15 MB of code of which a run needs little. The code stays in the page cache, shared by all workers, and is
/// mapped again on its next use, which is the warm-up.
pub(crate) fn give_back(library: &Path) {
    // SAFETY: this only concerns memory that was freed.
    unsafe { libc::malloc_trim(0) };
    let (Ok(maps), Ok(library)) = (std::fs::read_to_string("/proc/self/maps"), library.canonicalize()) else {
        return;
    };
    for (start, end) in maps.lines().filter_map(|line| code_of(line, &library)) {
        // SAFETY: the range is a private mapping of a file that is executable and not writable, so no page of it
        // differs from the file: dropped pages are read from there again.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
}

/// The range of a line of `/proc/self/maps`, if it is `library`'s code. Its data stays even if it is read-only now:
/// the linker may have written to it before.
fn code_of(line: &str, library: &Path) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights) = (words.next()?, words.next()?);
    // Offset, device and inode are in between; a path may contain spaces.
    let path = line.get(line.find('/')?..)?;
    if rights != "r-xp" || Path::new(path) != library {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_the_library_is_given_back() {
        let library = Path::new("/opt/a b/libonnxruntime.so.1");
        let line = |rights, path| format!("7f00-7f10 {rights} 00001000 fe:01 42    {path}");
        assert_eq!(code_of(&line("r-xp", "/opt/a b/libonnxruntime.so.1"), library), Some((0x7f00, 0x7f10)));
        assert_eq!(code_of(&line("r--p", "/opt/a b/libonnxruntime.so.1"), library), None);
        assert_eq!(code_of(&line("rwxp", "/opt/a b/libonnxruntime.so.1"), library), None);
        assert_eq!(code_of(&line("r-xp", "/usr/lib/libc.so.6"), library), None);
        assert_eq!(code_of("7f00-7f10 r-xp 00000000 00:00 0    [vdso]", library), None);
        assert_eq!(code_of("", library), None);
    }
}
