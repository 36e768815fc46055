//! The runtime's values: over borrowed memory, or strings of their own.
//!
//! Reads addresses, shapes and the protocol's BYTES, hands on the runtime's values. Knows nothing of models.

use std::collections::HashMap;
use std::ffi::c_char;
use std::ptr;

use inferd_types::{DataType, Error, ErrorKind, Result, Shape, element_count};
use ort_sys::{OrtAllocatorType, OrtMemType, OrtMemoryInfo, OrtValue};
use smallvec::SmallVec;

use crate::api::{Api, Failure, Owned};
use crate::graph;

/// Maximum number of cached values. Two slots, 64 tensors and 32 batch sizes are 4,096; a model whose shapes are
/// all different would fill any cache, so a full one is cleared.
const CACHED_MAX: usize = 4096;

#[derive(PartialEq, Eq, Hash)]
struct Key {
    address: usize,
    datatype: DataType,
    shape: Shape,
}

/// Creates values over borrowed memory and caches them: the arena's addresses and batch sizes recur.
///
/// A cached value is only an address and a shape. It is not used once its memory is gone, and is valid again for
/// new memory at the same address.
pub(crate) struct Values {
    api: Api,
    memory: Owned<OrtMemoryInfo>,
    kept: HashMap<Key, Owned<OrtValue>>,
}

impl Values {
    pub(crate) fn new(api: Api) -> Result<Values, Failure> {
        let table = api.table();
        let memory = api.create(table.ReleaseMemoryInfo, |out| {
            let (allocator, kind) = (OrtAllocatorType::OrtDeviceAllocator, OrtMemType::OrtMemTypeDefault);
            // SAFETY: `out` is a place for the result.
            unsafe { (table.CreateCpuMemoryInfo)(allocator, kind, out) }
        })?;
        Ok(Values { api, memory, kept: HashMap::new() })
    }

    /// Clears the cache if it is full. Must not be called while any of its values is in use.
    pub(crate) fn tidy(&mut self) {
        if self.kept.len() > CACHED_MAX {
            self.kept.clear();
        }
    }

    /// The value over the memory at `address`, which must have room for the tensor while the value is used. Valid
    /// until [`Values::tidy`].
    pub(crate) fn over(
        &mut self,
        address: *mut u8,
        datatype: DataType,
        shape: &[u64],
    ) -> Result<*mut OrtValue> {
        let key = Key { address: address as usize, datatype, shape: shape.into() };
        if let Some(kept) = self.kept.get(&key) {
            return Ok(kept.as_ptr());
        }
        let made = self.make(address, datatype, shape)?;
        let value = made.as_ptr();
        self.kept.insert(key, made);
        Ok(value)
    }

    fn make(&self, address: *mut u8, datatype: DataType, shape: &[u64]) -> Result<Owned<OrtValue>> {
        let bytes = byte_count(datatype, shape)?;
        let sizes = signed(shape)?;
        let table = self.api.table();
        // An empty tensor may have no address; the runtime needs one that is not null.
        let address = if address.is_null() { ptr::dangling_mut::<u64>().cast() } else { address };
        self.api
            .create(table.ReleaseValue, |out| {
                // SAFETY: the value only records the address; it is read and written during a run, for whose
                // duration the caller vouches for the memory. The sizes are copied.
                unsafe {
                    (table.CreateTensorWithDataAsOrtValue)(
                        self.memory.as_ptr(),
                        address.cast(),
                        bytes,
                        sizes.as_ptr(),
                        sizes.len(),
                        graph::element_type(datatype),
                        out,
                    )
                }
            })
            .map_err(|failure| internal("a tensor can't be handed to the runtime", failure))
    }

    /// A value of strings, copied from the protocol's BYTES.
    ///
    /// # Errors
    /// `InvalidInput` if `data` does not hold as many elements as `shape` says.
    pub(crate) fn strings(&self, data: &[u8], shape: &[u64]) -> Result<Owned<OrtValue>> {
        let count = usize::try_from(element_count(shape)?).unwrap_or(usize::MAX);
        let elements: Vec<&[u8]> = elements(data)?;
        if elements.len() != count {
            let message =
                format!("shape {shape:?} takes {count} BYTES elements but {} were given", elements.len());
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let sizes = signed(shape)?;
        let (api, table) = (self.api, self.api.table());
        let fault = |failure| internal("strings can't be handed to the runtime", failure);
        let mut allocator = ptr::null_mut();
        // SAFETY: `allocator` is a place for the result, which is static in the library.
        api.check(unsafe { (table.GetAllocatorWithDefaultOptions)(&raw mut allocator) }).map_err(fault)?;
        let value = api.create(table.ReleaseValue, |out| {
            // SAFETY: allocator and sizes are alive, the sizes are copied, `out` is a place for the result.
            unsafe {
                (table.CreateTensorAsOrtValue)(
                    allocator,
                    sizes.as_ptr(),
                    sizes.len(),
                    graph::element_type(DataType::Bytes),
                    out,
                )
            }
        });
        let value = value.map_err(fault)?;
        for (index, element) in elements.into_iter().enumerate() {
            let mut room = ptr::null_mut::<c_char>();
            // With a length, not as a C string: an element may contain NUL.
            // SAFETY: `index` is below the count of elements; the library returns room for as many bytes as were
            // asked for, which are copied from memory that is not its own.
            unsafe {
                api.check((table.GetResizedStringTensorElementBuffer)(
                    value.as_ptr(),
                    index,
                    element.len(),
                    &raw mut room,
                ))
                .map_err(fault)?;
                ptr::copy_nonoverlapping(element.as_ptr(), room.cast::<u8>(), element.len());
            }
        }
        Ok(value)
    }
}

/// A tensor that the runtime allocated.
pub(crate) struct Made<'a> {
    pub(crate) api: Api,
    pub(crate) value: &'a Owned<OrtValue>,
}

impl Made<'_> {
    /// Its type and shape.
    pub(crate) fn describe(&self) -> Result<(DataType, Shape)> {
        let (api, table) = (self.api, self.api.table());
        let describe = || -> Result<(i32, Vec<i64>), Failure> {
            let info = api.create(table.ReleaseTensorTypeAndShapeInfo, |out| {
                // SAFETY: the value is a live tensor; `out` is a place for the result.
                unsafe { (table.GetTensorTypeAndShape)(self.value.as_ptr(), out) }
            })?;
            let mut code = 0i32;
            // SAFETY: `info` is alive; an enumeration of C has the size of an int.
            unsafe {
                api.check((table.GetTensorElementType)(info.as_ptr(), (&raw mut code).cast()))?;
                Ok((code, graph::tensor_sizes(api, info.as_ptr())?))
            }
        };
        let (code, sizes) = describe().map_err(|failure| internal("an output can't be read", failure))?;
        let datatype = graph::datatype(code).ok_or_else(|| {
            Error::new(ErrorKind::ModelFailed, "an output is of a type that the protocol lacks")
        })?;
        Ok((datatype, sizes.into_iter().map(|size| u64::try_from(size).unwrap_or(0)).collect()))
    }

    /// The address of its elements, for any type but BYTES. Valid as long as the value.
    pub(crate) fn data(&self) -> Result<*const u8> {
        let mut data = ptr::null_mut();
        // SAFETY: the value is a live tensor; `data` is a place for the result.
        let status = unsafe { (self.api.table().GetTensorMutableData)(self.value.as_ptr(), &raw mut data) };
        self.api.check(status).map_err(|failure| internal("an output can't be read", failure))?;
        Ok(data.cast_const().cast())
    }

    /// The elements of a tensor of strings as the protocol's BYTES.
    pub(crate) fn strings(&self, count: usize) -> Result<Vec<u8>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let (api, table) = (self.api, self.api.table());
        let fault = |failure| internal("an output of strings can't be read", failure);
        let mut total = 0;
        // SAFETY: the value is a live tensor of strings; `total` is a place for the result.
        api.check(unsafe { (table.GetStringTensorDataLength)(self.value.as_ptr(), &raw mut total) })
            .map_err(fault)?;
        let (mut text, mut starts) = (vec![0u8; total], vec![0usize; count]);
        // SAFETY: there is room for all bytes and for one offset per element.
        let status = unsafe {
            (table.GetStringTensorContent)(
                self.value.as_ptr(),
                text.as_mut_ptr().cast(),
                total,
                starts.as_mut_ptr(),
                count,
            )
        };
        api.check(status).map_err(fault)?;
        let mut data = Vec::with_capacity(total + 4 * count);
        let ends = starts.iter().skip(1).copied().chain([total]);
        for (start, end) in starts.iter().zip(ends) {
            let element = &text[*start..end];
            let length = u32::try_from(element.len()).map_err(|_| {
                Error::new(ErrorKind::ModelFailed, "an output has a string of more than 4 GiB")
            })?;
            data.extend_from_slice(&length.to_le_bytes());
            data.extend_from_slice(element);
        }
        Ok(data)
    }
}

/// The elements of the protocol's BYTES.
pub(crate) fn elements(mut data: &[u8]) -> Result<Vec<&[u8]>> {
    let mut elements = Vec::new();
    while !data.is_empty() {
        let split = data.split_first_chunk::<4>().and_then(|(length, rest)| {
            rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
        });
        let (element, rest) = split.ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, format!("BYTES element {} runs past the end", elements.len()))
        })?;
        elements.push(element);
        data = rest;
    }
    Ok(elements)
}

/// Size of a tensor in bytes, whose elements have a fixed size.
pub(crate) fn byte_count(datatype: DataType, shape: &[u64]) -> Result<usize> {
    let size = datatype
        .size()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "BYTES elements have no common size"))?;
    usize::try_from(element_count(shape)?)
        .ok()
        .and_then(|count| count.checked_mul(size))
        .ok_or_else(|| Error::new(ErrorKind::InvalidInput, format!("shape {shape:?} is larger than memory")))
}

fn signed(shape: &[u64]) -> Result<SmallVec<[i64; 8]>> {
    shape.iter().map(|size| i64::try_from(*size)).collect::<Result<_, _>>().map_err(|_| {
        Error::new(ErrorKind::InvalidInput, format!("shape {shape:?} is larger than can be counted"))
    })
}

fn internal(what: &'static str, failure: Failure) -> Error {
    Error::new(ErrorKind::ModelFailed, what).with_detail(failure.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_taken_apart_with_nul_and_emptiness_kept() {
        let data = b"\x03\0\0\0a\0b\0\0\0\0\x01\0\0\0\xff";
        assert_eq!(elements(data).unwrap(), [&b"a\0b"[..], b"", b"\xff"]);
        assert!(elements(b"\x03\0\0\0ab").is_err());
    }

    #[test]
    fn the_size_of_a_tensor_is_checked_for_overflow() {
        assert_eq!(byte_count(DataType::Fp32, &[2, 3]).unwrap(), 24);
        assert_eq!(byte_count(DataType::Fp64, &[]).unwrap(), 8);
        assert!(byte_count(DataType::Fp64, &[1 << 62]).is_err());
    }
}
