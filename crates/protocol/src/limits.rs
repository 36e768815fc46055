//! What a request may at most be.

/// Limits of a request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum nesting of arrays and objects in JSON.
    pub json_depth_max: usize,
    /// Maximum size of a body, decompressed.
    pub body_max_bytes: usize,
    /// Whether tensors may be in shared memory.
    pub shared_memory: bool,
}

impl Default for Limits {
    /// The defaults of the settings with the same names: 64 levels, 64 MiB, no shared memory.
    fn default() -> Self {
        Limits { json_depth_max: 64, body_max_bytes: 64 << 20, shared_memory: false }
    }
}
