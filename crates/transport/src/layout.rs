//! The layout of an arena.
//!
//! Reads a signature and the limits, hands on offsets. Both sides use the same value: the gateway computes it and
//! sends it with the memory. Knows nothing of processes, and maps nothing.

use inferd_types::settings::ModelSettings;
use inferd_types::{Error, ErrorKind, Result, Shape, Signature, TensorSpec};
use serde::{Deserialize, Serialize};

/// The first word of every arena.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"inferd\0\x01");
/// 1 while the worker sleeps on this word.
pub(crate) const WORKER_SLEEPING: usize = 64;
/// What the gateway wants to be rung for: `Waiting` as a number. In a cache line of its own.
pub(crate) const GATEWAY_WAITING: usize = 128;
const HEADS: usize = 192;
/// Size of a tensor's descriptor in bytes.
pub(crate) const DESCRIPTOR_BYTES: usize = 96;

/// Alignment of tensors and slots, in bytes, for vector instructions and ONNX Runtime.
pub(crate) const ALIGN: usize = 64;
/// Maximum number of inputs, and of outputs: tables with mixed types have an input per column.
pub(crate) const TENSORS_MAX: usize = 1024;
/// Maximum number of dimensions.
pub(crate) const RANK_MAX: usize = 8;
/// Room in bytes for tensors of unknown size before a segment is needed.
const DYNAMIC_BYTES: usize = 256 << 10;

/// Offsets within a slot's header.
pub(crate) mod head {
    /// The slot word.
    pub(crate) const WORD: usize = 0;
    /// Number of control messages that the gateway had sent when it opened the batch: the worker reads them first.
    pub(crate) const MESSAGES: usize = 8;
    /// Execution time in nanoseconds.
    pub(crate) const EXECUTION: usize = 16;
    /// 0: outputs; 1: the input is invalid; 2: the model failed.
    pub(crate) const OUTCOME: usize = 24;
    /// Length of the message of a failure.
    pub(crate) const MESSAGE_LEN: usize = 28;
    /// Length of its detail.
    pub(crate) const DETAIL_LEN: usize = 32;
    /// End of the run, in nanoseconds of [`crate::moment`].
    pub(crate) const ENDED: usize = 40;
    /// Descriptors: inputs, then outputs.
    pub(crate) const DESCRIPTORS: usize = 64;
}

/// Maximum length of a failure's client-safe message, in bytes.
pub(crate) const MESSAGE_MAX: usize = 2 << 10;
/// Maximum length of a traceback, in bytes.
pub(crate) const DETAIL_MAX: usize = 14 << 10;

/// A range of an arena or segment, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Room {
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
}

impl Room {
    pub(crate) fn end(self) -> usize {
        self.offset + self.bytes
    }
}

/// One of the two slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotLayout {
    /// Offset of the header: word, figures and descriptors.
    pub(crate) head: usize,
    /// Inputs that don't need a segment.
    pub(crate) inputs: Room,
    /// Outputs that don't need a segment: those of known size first, at fixed addresses.
    pub(crate) outputs: Room,
    /// The place of each output of known size.
    pub(crate) fixed_outputs: Vec<Option<Room>>,
    /// The rest of `outputs`, for the others.
    pub(crate) free_outputs: Room,
    /// Offset of the message and detail of a failure.
    pub(crate) text: usize,
}

/// A whole arena.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Layout {
    /// Length of the memory.
    pub(crate) bytes: usize,
    /// Whether dimension 0 counts rows.
    pub(crate) batched: bool,
    /// Number of inputs.
    pub(crate) inputs: usize,
    /// Number of outputs.
    pub(crate) outputs: usize,
    /// The slots.
    pub(crate) slots: [SlotLayout; 2],
}

/// `bytes` rounded up to a multiple of [`ALIGN`].
pub(crate) fn align(bytes: usize) -> Option<usize> {
    bytes.checked_next_multiple_of(ALIGN)
}

impl Layout {
    /// The arena of a model. If all sizes are known there is room for `batch_rows_max` rows.
    pub(crate) fn new(signature: &Signature, settings: &ModelSettings) -> Result<Layout> {
        let rows = signature.batched().then_some(settings.batch_rows_max);
        // A quarter of the limit per slot and direction; larger tensors are in segments.
        let limit = settings.arena_max_bytes / 4;
        let dynamic = DYNAMIC_BYTES.min(limit / 2) / ALIGN * ALIGN;
        let inputs: Vec<_> = signature.inputs.iter().map(|spec| fixed_bytes(spec, rows)).collect();
        let outputs: Vec<_> = signature.outputs.iter().map(|spec| fixed_bytes(spec, rows)).collect();
        let input_bytes = sum(&inputs, limit).unwrap_or(dynamic);
        let known: Vec<_> =
            match sum(&outputs.iter().copied().filter(Option::is_some).collect::<Vec<_>>(), limit) {
                Some(_) => outputs.clone(),
                None => vec![None; outputs.len()],
            };
        let free_bytes = if known.iter().all(Option::is_some) { 0 } else { dynamic };

        let descriptors = (inputs.len() + outputs.len()) * DESCRIPTOR_BYTES;
        let head_bytes = (head::DESCRIPTORS + descriptors).next_multiple_of(ALIGN);
        let mut at = HEADS + 2 * head_bytes;
        let mut slots = [0, 1].map(|index| {
            let room = |at: &mut usize, bytes: usize| {
                let room = Room { offset: *at, bytes };
                *at += bytes.next_multiple_of(ALIGN);
                room
            };
            let inputs = room(&mut at, input_bytes);
            let fixed_outputs: Vec<_> =
                known.iter().map(|bytes| bytes.map(|bytes| room(&mut at, bytes))).collect();
            let free_outputs = room(&mut at, free_bytes);
            let outputs = Room { offset: inputs.offset + input_bytes.next_multiple_of(ALIGN), bytes: 0 };
            let outputs = Room { bytes: at - outputs.offset, ..outputs };
            SlotLayout {
                head: HEADS + index * head_bytes,
                inputs,
                outputs,
                fixed_outputs,
                free_outputs,
                text: 0,
            }
        });
        // Failure texts have pages of their own at the end: they take no memory until a batch fails.
        at = at.next_multiple_of(4096);
        for slot in &mut slots {
            slot.text = at;
            at += MESSAGE_MAX + DETAIL_MAX;
        }
        let layout = Layout {
            bytes: at,
            batched: rows.is_some(),
            inputs: inputs.len(),
            outputs: outputs.len(),
            slots,
        };
        if layout.bytes > settings.arena_max_bytes {
            let message = format!(
                "model '{}' needs shared memory of {} bytes at least; raise arena_max_bytes ({})",
                settings.name, layout.bytes, settings.arena_max_bytes
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(layout)
    }

    /// Whether every offset is inside: the worker's check of what it was sent.
    pub(crate) fn is_sound(&self) -> bool {
        let inside = |room: &Room| {
            room.offset.is_multiple_of(ALIGN) && room.offset <= self.bytes && {
                room.bytes <= self.bytes - room.offset
            }
        };
        self.inputs <= TENSORS_MAX
            && self.outputs <= TENSORS_MAX
            && self.slots.iter().all(|slot| {
                let descriptors = (self.inputs + self.outputs) * DESCRIPTOR_BYTES;
                inside(&Room { offset: slot.head, bytes: head::DESCRIPTORS + descriptors })
                    && inside(&Room { offset: slot.text, bytes: MESSAGE_MAX + DETAIL_MAX })
                    && [&slot.inputs, &slot.outputs, &slot.free_outputs].into_iter().all(inside)
                    && slot.fixed_outputs.len() == self.outputs
                    && slot.fixed_outputs.iter().flatten().all(inside)
            })
    }
}

/// Size of the largest tensor of `spec`, if known: of `rows` rows, or of the whole fixed shape.
fn fixed_bytes(spec: &TensorSpec, rows: Option<u32>) -> Option<usize> {
    let first = match rows {
        Some(rows) => rows as usize,
        None => spec.shape.first().map_or(Some(1), |dim| usize::try_from(*dim).ok())?,
    };
    spec.row_bytes()?.checked_mul(first)
}

/// The sum of all, each aligned; `None` if one is unknown or the limit is exceeded.
fn sum(bytes: &[Option<usize>], limit: usize) -> Option<usize> {
    bytes.iter().try_fold(0usize, |sum, bytes| sum.checked_add(align((*bytes)?)?)).filter(|sum| *sum <= limit)
}

/// Offsets of consecutive tensors, and their total size in bytes. `None` on overflow.
pub(crate) fn place(sizes: impl Iterator<Item = usize>, offsets: &mut Vec<usize>) -> Option<usize> {
    offsets.clear();
    let mut at = 0usize;
    for size in sizes {
        offsets.push(at);
        at = at.checked_add(align(size)?)?;
    }
    Some(at)
}

/// `shape` with its first dimension replaced, for batched models.
pub(crate) fn with_rows(shape: &[u64], rows: u32) -> Shape {
    let mut shape = Shape::from_slice(shape);
    if let Some(first) = shape.first_mut() {
        *first = u64::from(rows);
    }
    shape
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use inferd_types::settings::Seconds;
    use inferd_types::{Batching, DataType};

    use super::*;

    pub(crate) fn spec(datatype: DataType, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: "x".into(), datatype, shape: shape.to_vec() }
    }

    pub(crate) fn settings() -> ModelSettings {
        ModelSettings {
            load_max_s: Seconds(Duration::from_secs(1)),
            linger: true,
            ..inferd_testkit::settings("m")
        }
    }

    pub(crate) fn signature(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>, batched: bool) -> Signature {
        let batching = if batched { Batching::On } else { Batching::Off { reason: "test".into() } };
        Signature { inputs, outputs, batching, decoupled: false, extras: Default::default() }
    }

    #[test]
    fn a_tiny_model_touches_a_page_or_two() {
        let tiny =
            signature(vec![spec(DataType::Fp32, &[-1, 4])], vec![spec(DataType::Fp32, &[-1, 2])], true);
        let layout = Layout::new(&tiny, &settings()).unwrap();
        assert!(layout.slots[1].free_outputs.end() <= 4096, "{layout:?}");
        assert!(layout.is_sound());
    }

    #[test]
    fn rooms_are_aligned_and_do_not_overlap() {
        let model = signature(
            vec![spec(DataType::Fp32, &[-1, 3]), spec(DataType::Bytes, &[-1])],
            vec![spec(DataType::Int8, &[-1, 5]), spec(DataType::Fp32, &[-1, -1])],
            true,
        );
        let layout = Layout::new(&model, &settings()).unwrap();
        let mut rooms: Vec<Room> = Vec::new();
        for slot in &layout.slots {
            let head = head::DESCRIPTORS + 4 * DESCRIPTOR_BYTES;
            rooms.extend([Room { offset: slot.head, bytes: head }, slot.inputs, slot.free_outputs]);
            rooms.extend(slot.fixed_outputs.iter().flatten());
            rooms.push(Room { offset: slot.text, bytes: MESSAGE_MAX + DETAIL_MAX });
        }
        rooms.sort_by_key(|room| room.offset);
        assert!(rooms.windows(2).all(|pair| pair[0].end() <= pair[1].offset), "{rooms:?}");
        assert!(rooms.last().unwrap().end() <= layout.bytes && rooms[0].offset >= HEADS);
        assert!(layout.is_sound());
        assert_eq!(layout.slots[0].fixed_outputs[0].map(|room| room.bytes), Some(160));
        assert_eq!(layout.slots[0].fixed_outputs[1], None);
    }

    #[test]
    fn what_would_not_fit_is_left_to_segments() {
        let big =
            signature(vec![spec(DataType::Fp32, &[-1, 1 << 20])], vec![spec(DataType::Fp32, &[-1, 1])], true);
        let layout = Layout::new(&big, &settings()).unwrap();
        assert_eq!(layout.slots[0].inputs.bytes, DYNAMIC_BYTES);
        let huge = signature(vec![spec(DataType::Fp32, &[-1, i64::MAX / 2, 8])], vec![], true);
        assert!(Layout::new(&huge, &settings()).is_ok());
    }

    #[test]
    fn a_limit_below_the_least_is_refused_with_the_setting_to_raise() {
        let tiny = signature(vec![], vec![], true);
        let error = Layout::new(&tiny, &ModelSettings { arena_max_bytes: 1000, ..settings() }).unwrap_err();
        assert!(error.message().contains("raise arena_max_bytes"));
    }
}
