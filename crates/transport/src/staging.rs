//! The gather copy: rows of several requests become contiguous inputs.
//!
//! Reads the tensors of requests, computes the memory that they need, hands on where each input is after writing
//! it. Knows nothing of slots and their states.

use inferd_types::{DataType, Shape, Signature, Tensor};

use crate::descriptor::Descriptor;
use crate::layout::{ALIGN, DESCRIPTOR_BYTES, RANK_MAX, place};
use crate::memory::Mapping;

/// Shapes and sizes of the inputs of one batch.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    inputs: Vec<InputShape>,
    offsets: Vec<usize>,
}

#[derive(Debug)]
struct InputShape {
    datatype: DataType,
    /// The first request's.
    shape: Shape,
    /// Bytes of one row; `None` if rows differ.
    row_bytes: Option<usize>,
    /// Bytes of all requests.
    bytes: usize,
}

/// The memory that a batch needs, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// With room for more rows, if rows have one size.
    pub(crate) roomy_bytes: usize,
    pub(crate) roomy_rows: u32,
    /// For exactly its rows. `usize::MAX` on overflow.
    pub(crate) exact_bytes: usize,
}

/// The place of one input of a batch.
#[derive(Debug)]
pub(crate) struct Placed {
    datatype: DataType,
    /// The first request's: the others differ in dimension 0 alone.
    shape: Shape,
    row_bytes: Option<usize>,
    offset: usize,
    /// Its size in bytes, including alignment.
    room: usize,
}

impl Placed {
    /// The offset of a row, if every row is one byte.
    pub(crate) fn row_of_a_byte(&self, row: u32) -> Option<usize> {
        (self.row_bytes == Some(1)).then_some(self.offset + row as usize)
    }
}

impl Shapes {
    /// Reads the shapes of a batch and returns its rows; `None` if the requests are incompatible.
    pub(crate) fn read(
        &mut self,
        requests: &[&[Tensor]],
        signature: &Signature,
        batched: bool,
    ) -> Option<u32> {
        self.inputs.clear();
        let (first, more) = requests.split_first()?;
        if first.len() != signature.inputs.len() || (!batched && !more.is_empty()) {
            return None;
        }
        for tensor in first.iter() {
            if tensor.shape.len() > RANK_MAX {
                return None;
            }
            let rows = if batched { usize::try_from(*tensor.shape.first()?).ok()? } else { 1 };
            let row_bytes = match tensor.datatype {
                DataType::Bytes => None,
                datatype if batched => row_bytes(datatype, &tensor.shape),
                _ => Some(tensor.data.len()),
            };
            // Tensors are checked when they are made; a wrong one here would shift rows, so check again.
            if row_bytes.is_some_and(|bytes| bytes.checked_mul(rows) != Some(tensor.data.len())) {
                return None;
            }
            let (datatype, shape) = (tensor.datatype, tensor.shape.clone());
            self.inputs.push(InputShape { datatype, shape, row_bytes, bytes: 0 });
        }
        let mut rows = 0u32;
        for request in requests {
            let same = |index: usize| {
                let input = self.inputs.get(index)?;
                Some((input.datatype, &input.shape[..], input.row_bytes))
            };
            rows = rows.checked_add(if batched { request_rows(request, same)? } else { 1 })?;
            for (input, tensor) in self.inputs.iter_mut().zip(request.iter()) {
                input.bytes = input.bytes.checked_add(tensor.data.len())?;
            }
        }
        Some(rows)
    }

    /// The memory that the batch needs.
    pub(crate) fn plan(&mut self, rows: u32, rows_max: u32, batched: bool) -> Plan {
        let sizes = self.inputs.iter().map(|input| input.bytes);
        let exact_bytes = place(sizes, &mut self.offsets).unwrap_or(usize::MAX);
        let same_size = batched && self.inputs.iter().all(|input| input.row_bytes.is_some());
        let roomy_rows = if same_size { rows.max(rows_max) } else { rows };
        if roomy_rows == rows {
            return Plan { roomy_bytes: exact_bytes, roomy_rows, exact_bytes };
        }
        let size =
            |input: &InputShape| input.row_bytes.and_then(|bytes| bytes.checked_mul(roomy_rows as usize));
        let sizes = self.inputs.iter().map(|input| size(input).unwrap_or(usize::MAX));
        let roomy_bytes = place(sizes, &mut self.offsets).unwrap_or(usize::MAX);
        Plan { roomy_bytes, roomy_rows, exact_bytes }
    }

    /// Lays out the inputs from `base` on: with room for `capacity` rows, or exactly.
    pub(crate) fn place(&mut self, base: usize, capacity: u32, roomy: bool) -> Vec<Placed> {
        // The plan has computed these sizes, so nothing overflows.
        let size = |input: &InputShape| match input.row_bytes {
            Some(row_bytes) if roomy => row_bytes * capacity as usize,
            _ => input.bytes,
        };
        let mut at = base;
        let inputs = self.inputs.iter().map(|input| {
            let room = size(input).next_multiple_of(ALIGN);
            let offset = at;
            at += room;
            let (datatype, shape, row_bytes) = (input.datatype, input.shape.clone(), input.row_bytes);
            Placed { datatype, shape, row_bytes, offset, room }
        });
        inputs.collect()
    }

    /// Writes the descriptors. Dimension 0 of a batched model is in the slot word.
    pub(crate) fn describe(&self, memory: &Mapping, mut at: usize, segment: u32, inputs: &[Placed]) {
        for (input, placed) in self.inputs.iter().zip(inputs) {
            // The length counts for BYTES; otherwise rows may still be appended, and the reader computes it.
            let (offset, len) = (placed.offset as u64, input.bytes as u64);
            let shape = placed.shape.clone();
            let descriptor = Descriptor { datatype: placed.datatype, shape, segment, offset, len };
            memory.write(at, &descriptor.encode());
            at += DESCRIPTOR_BYTES;
        }
    }
}

/// Bytes of one row of a tensor.
fn row_bytes(datatype: DataType, shape: &[u64]) -> Option<usize> {
    shape[1..].iter().try_fold(datatype.size()?, |bytes, dim| bytes.checked_mul(usize::try_from(*dim).ok()?))
}

/// The rows of a request for a batched model, if its tensors match the batch in all but dimension 0.
fn request_rows<'a>(
    request: &[Tensor],
    like: impl Fn(usize) -> Option<(DataType, &'a [u64], Option<usize>)>,
) -> Option<u32> {
    let rows = *request.first()?.shape.first()?;
    for (index, tensor) in request.iter().enumerate() {
        let (datatype, shape, row_bytes) = like(index)?;
        let (first, rest) = tensor.shape.split_first()?;
        let right_size = row_bytes.is_none_or(|bytes| {
            usize::try_from(rows).ok().and_then(|rows| bytes.checked_mul(rows)) == Some(tensor.data.len())
        });
        if tensor.datatype != datatype || *first != rows || rest != &shape[1..] || !right_size {
            return None;
        }
    }
    if like(request.len()).is_some() {
        return None;
    }
    u32::try_from(rows).ok()
}

/// The rows of requests to append to a batch; `None` if they don't match it, or rows differ in size.
pub(crate) fn more_rows(requests: &[&[Tensor]], inputs: &[Placed]) -> Option<u32> {
    let like = |index: usize| {
        let input = inputs.get(index)?;
        Some((input.datatype, &input.shape[..], Some(input.row_bytes?)))
    };
    if inputs.iter().any(|input| input.row_bytes.is_none() || input.shape.is_empty()) {
        return None;
    }
    requests.iter().try_fold(0u32, |rows, request| rows.checked_add(request_rows(request, like)?))
}

/// Writes the rows of `requests` after the first `skip` rows of each input, and zeroes the rest of the last 64
/// bytes: vector instructions that read beyond the rows find nothing of an earlier batch.
pub(crate) fn write_rows(memory: &Mapping, inputs: &[Placed], skip: u32, requests: &[&[Tensor]]) {
    for (index, input) in inputs.iter().enumerate() {
        let mut at = input.offset + input.row_bytes.map_or(0, |bytes| bytes * skip as usize);
        for request in requests {
            let data = &request[index].data;
            memory.write(at, data);
            at += data.len();
        }
        let end = input.offset + input.room;
        debug_assert!(at <= end, "rows are counted before they are written");
        let padding = (at.next_multiple_of(ALIGN)).min(end).saturating_sub(at);
        memory.zero(at, padding);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use smallvec::smallvec;

    use super::*;
    use crate::layout::tests::{signature, spec};
    use crate::memory::sealed_file;

    fn rows(values: &[u8], width: u64) -> Tensor {
        let shape = smallvec![values.len() as u64 / width, width];
        Tensor { datatype: DataType::Uint8, shape, data: Bytes::copy_from_slice(values) }
    }

    #[test]
    fn rows_of_several_requests_become_contiguous() {
        let signature =
            signature(vec![spec(DataType::Uint8, &[-1, 2]), spec(DataType::Uint8, &[-1, 1])], vec![], true);
        let mapping = Mapping::new(sealed_file("test", 4096).unwrap(), 4096).unwrap();
        mapping.write(0, &[9; 4096]);
        let first = [rows(&[1, 2], 2), rows(&[10], 1)];
        let second = [rows(&[3, 4, 5, 6], 2), rows(&[11, 12], 1)];
        let mut shapes = Shapes::default();
        let requests: [&[Tensor]; 2] = [&first, &second];
        assert_eq!(shapes.read(&requests, &signature, true), Some(3));
        let plan = shapes.plan(3, 8, true);
        assert_eq!((plan.roomy_rows, plan.roomy_bytes, plan.exact_bytes), (8, 128, 128));
        let placed = shapes.place(64, 8, true);
        write_rows(&mapping, &placed, 0, &requests);
        assert_eq!(mapping.read::<8>(64), [1, 2, 3, 4, 5, 6, 0, 0]);
        assert_eq!(mapping.read::<5>(128), [10, 11, 12, 0, 0]);
        assert_eq!(mapping.read::<2>(191), [0, 9], "padding is zeroed, nothing behind it is touched");

        let third = [rows(&[7, 8], 2), rows(&[13], 1)];
        assert_eq!(more_rows(&[&third], &placed), Some(1));
        write_rows(&mapping, &placed, 3, &[&third]);
        assert_eq!(mapping.read::<9>(64), [1, 2, 3, 4, 5, 6, 7, 8, 0]);
        assert_eq!(mapping.read::<5>(128), [10, 11, 12, 13, 0]);
    }

    #[test]
    fn requests_that_differ_in_shape_are_no_batch() {
        let signature = signature(vec![spec(DataType::Uint8, &[-1, -1])], vec![], true);
        let mut shapes = Shapes::default();
        let (narrow, wide) = ([rows(&[1, 2], 2)], [rows(&[1, 2, 3], 3)]);
        assert_eq!(shapes.read(&[&narrow, &wide], &signature, true), None);
        assert_eq!(shapes.read(&[&narrow, &[]], &signature, true), None);
        assert_eq!(shapes.read(&[], &signature, true), None);
        assert_eq!(shapes.read(&[&narrow, &narrow], &signature, false), None);
        assert_eq!(shapes.read(&[&narrow], &signature, false), Some(1));
        let lying = [Tensor { data: Bytes::from_static(&[1]), ..rows(&[1, 2], 2) }];
        assert_eq!(shapes.read(&[&lying], &signature, true), None);
        assert_eq!(shapes.read(&[&narrow, &lying], &signature, true), None);
    }
}
