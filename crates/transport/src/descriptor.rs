//! Descriptors: how a tensor of a slot is described in shared memory.
//!
//! Reads bytes that were copied out of the arena, hands on locations that are inside it. Knows nothing of mappings:
//! it consists of pure functions, so that it can be tested with arbitrary bytes.

use inferd_types::{DataType, Shape, Signature, element_count};
use smallvec::SmallVec;

use crate::layout::{ALIGN, DESCRIPTOR_BYTES, RANK_MAX};

/// Segment 0 is the arena itself.
pub(crate) const ARENA: u32 = 0;

/// One tensor in shared memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) datatype: DataType,
    pub(crate) shape: Shape,
    /// The segment that holds it.
    pub(crate) segment: u32,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Descriptor {
    /// Its form in memory.
    pub(crate) fn encode(&self) -> [u8; DESCRIPTOR_BYTES] {
        assert!(self.shape.len() <= RANK_MAX, "shapes are checked before they are staged");
        let mut out = [0; DESCRIPTOR_BYTES];
        out[0..4].copy_from_slice(&u32::from(self.datatype as u8).to_le_bytes());
        out[4..8].copy_from_slice(&(self.shape.len() as u32).to_le_bytes());
        out[8..12].copy_from_slice(&self.segment.to_le_bytes());
        out[16..24].copy_from_slice(&self.offset.to_le_bytes());
        out[24..32].copy_from_slice(&self.len.to_le_bytes());
        for (to, dim) in out[32..].chunks_exact_mut(8).zip(&self.shape) {
            to.copy_from_slice(&dim.to_le_bytes());
        }
        out
    }

    /// `Ok(None)` if nothing is described; an error says what is impossible.
    pub(crate) fn decode(bytes: &[u8; DESCRIPTOR_BYTES]) -> Result<Option<Descriptor>, &'static str> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let code = word(0);
        if code == 0 {
            return Ok(None);
        }
        let datatype = u8::try_from(code).ok().and_then(DataType::from_code).ok_or("an unknown datatype")?;
        let rank = word(4) as usize;
        if rank > RANK_MAX {
            return Err("more than 8 dimensions");
        }
        let shape = (0..rank).map(|dim| long(32 + 8 * dim)).collect();
        Ok(Some(Descriptor { datatype, shape, segment: word(8), offset: long(16), len: long(24) }))
    }
}

/// The segment of a descriptor's tensor. Not checked.
pub(crate) fn segment_of(descriptor: &[u8]) -> u32 {
    descriptor
        .get(8..12)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(ARENA, |bytes| u32::from_le_bytes(*bytes))
}

/// Memory in which outputs of a slot may be.
#[derive(Clone, Copy, Debug)]
pub struct OutputRoom {
    /// 0 for the arena.
    pub segment: u32,
    /// First byte.
    pub start: usize,
    /// One past the last.
    pub end: usize,
}

/// An output that is inside one of the rooms and matches the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The element type.
    pub datatype: DataType,
    /// The dimensions.
    pub shape: Shape,
    /// The segment that holds it.
    pub segment: u32,
    /// First byte in the segment.
    pub offset: usize,
    /// Number of bytes.
    pub len: usize,
}

/// Why descriptors are rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They are invalid: the worker's memory is corrupt, or it is hostile.
    Broken(&'static str),
    /// The model gave an output that does not match its signature.
    Model(String),
}

/// Checks the output descriptors of a batch of `rows` rows, copied out of the arena, against the signature.
///
/// # Errors
/// See [`Fault`].
pub fn check_outputs(
    descriptors: &[u8],
    rows: u32,
    signature: &Signature,
    rooms: &[OutputRoom],
) -> Result<SmallVec<[Located; 2]>, Fault> {
    let mut found = SmallVec::new();
    let mut rest = descriptors;
    for spec in &signature.outputs {
        let (bytes, tail) =
            rest.split_first_chunk::<DESCRIPTOR_BYTES>().ok_or(Fault::Broken("too few descriptors"))?;
        rest = tail;
        let missing = || Fault::Model(format!("the model gave no output '{}'", spec.name));
        let output = Descriptor::decode(bytes).map_err(Fault::Broken)?.ok_or_else(missing)?;
        let located = locate(&output, rooms)?;
        if output.datatype != spec.datatype {
            let (got, want) = (output.datatype, spec.datatype);
            return Err(Fault::Model(format!("the model gave output '{}' as {got}, not {want}", spec.name)));
        }
        let shape = &output.shape;
        if signature.batched() && shape.first().is_none_or(|first| *first != u64::from(rows)) {
            let given = shape.first().copied().unwrap_or(0);
            return Err(Fault::Model(format!(
                "the model gave {given} rows of output '{}' for a batch of {rows}; set batching: off if dimension \
                 0 does not count rows",
                spec.name
            )));
        }
        // Dimension 0 of a batched model counts rows, whatever the signature says.
        let skip = usize::from(signature.batched());
        let fits = shape.len() == spec.shape.len()
            && spec.shape.iter().zip(shape).skip(skip).all(|(want, got)| *want < 0 || *want as u64 == *got);
        if !fits {
            let (got, want) = (&shape[..], &spec.shape);
            return Err(Fault::Model(format!(
                "the model gave output '{}' of shape {got:?}, not {want:?}",
                spec.name
            )));
        }
        found.push(located);
    }
    Ok(found)
}

/// The location of an output, if it is inside a room and its length matches its shape.
fn locate(output: &Descriptor, rooms: &[OutputRoom]) -> Result<Located, Fault> {
    let count = element_count(&output.shape).map_err(|_| Fault::Broken("a shape that overflows"))?;
    if let Some(size) = output.datatype.size()
        && count.checked_mul(size as u64) != Some(output.len)
    {
        return Err(Fault::Broken("a length that is not that of its shape"));
    }
    let range = usize::try_from(output.offset).ok().zip(usize::try_from(output.len).ok());
    let (offset, len) = range.ok_or(Fault::Broken("an offset beyond all memory"))?;
    let end = offset.checked_add(len).ok_or(Fault::Broken("an offset beyond all memory"))?;
    let inside =
        rooms.iter().any(|room| room.segment == output.segment && room.start <= offset && end <= room.end);
    if !inside || !offset.is_multiple_of(ALIGN) {
        return Err(Fault::Broken("an output outside of its room"));
    }
    Ok(Located {
        datatype: output.datatype,
        shape: output.shape.clone(),
        segment: output.segment,
        offset,
        len,
    })
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;
    use crate::layout::tests::{signature, spec};

    const ROOMS: &[OutputRoom] =
        &[OutputRoom { segment: 0, start: 128, end: 1024 }, OutputRoom { segment: 7, start: 0, end: 64 }];

    fn output() -> Descriptor {
        Descriptor { datatype: DataType::Fp32, shape: smallvec![2, 3], segment: 0, offset: 128, len: 24 }
    }

    fn check(output: &Descriptor) -> Result<SmallVec<[Located; 2]>, Fault> {
        let signature = signature(vec![], vec![spec(DataType::Fp32, &[-1, 3])], true);
        check_outputs(&output.encode(), 2, &signature, ROOMS)
    }

    #[test]
    fn a_descriptor_survives_its_memory_form() {
        assert_eq!(Descriptor::decode(&output().encode()), Ok(Some(output())));
        assert_eq!(Descriptor::decode(&[0; DESCRIPTOR_BYTES]), Ok(None));
    }

    #[test]
    fn what_matches_the_signature_is_located() {
        assert_eq!(check(&output()).unwrap()[0].offset, 128);
        assert!(check(&Descriptor { segment: 7, offset: 0, ..output() }).is_ok());
    }

    #[test]
    fn what_is_outside_of_its_room_is_broken() {
        for (segment, offset) in
            [(0, 0), (0, 1024), (0, 1 << 40), (0, u64::MAX - 8), (7, 64), (8, 128), (0, 129)]
        {
            let result = check(&Descriptor { segment, offset, ..output() });
            assert!(matches!(result, Err(Fault::Broken(_))), "{segment} {offset}");
        }
        assert!(matches!(check(&Descriptor { len: 25, ..output() }), Err(Fault::Broken(_))));
        assert!(matches!(check(&Descriptor { len: u64::MAX, ..output() }), Err(Fault::Broken(_))));
        let overflowing = Descriptor { shape: smallvec![u64::MAX, 3], ..output() };
        assert!(matches!(check(&overflowing), Err(Fault::Broken(_))));
    }

    #[test]
    fn what_breaks_the_signature_is_the_models_fault_and_named() {
        let wrong_rows = Descriptor { shape: smallvec![3, 2], ..output() };
        let Err(Fault::Model(message)) = check(&wrong_rows) else { panic!() };
        assert!(message.contains("3 rows of output 'x' for a batch of 2"), "{message}");
        let wrong_type = Descriptor { datatype: DataType::Int32, ..output() };
        assert!(
            matches!(check(&wrong_type), Err(Fault::Model(message)) if message.contains("as INT32, not FP32"))
        );
        let wrong_dim = Descriptor { shape: smallvec![2, 4], len: 32, ..output() };
        assert!(matches!(check(&wrong_dim), Err(Fault::Model(message)) if message.contains("[2, 4]")));
        let signature = signature(vec![], vec![spec(DataType::Fp32, &[-1, 3])], true);
        assert!(matches!(check_outputs(&[0; DESCRIPTOR_BYTES], 2, &signature, ROOMS), Err(Fault::Model(_))));
        assert!(matches!(check_outputs(&[0; 5], 2, &signature, ROOMS), Err(Fault::Broken(_))));
    }

    #[test]
    fn random_descriptors_never_panic_and_never_reach_outside() {
        let signature = signature(vec![], vec![spec(DataType::Bytes, &[-1, -1])], false);
        let mut state = 1u64;
        for _ in 0..20_000 {
            let mut bytes = [0u8; DESCRIPTOR_BYTES];
            for byte in &mut bytes {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                // Mostly small numbers: the interesting ones are near the limits.
                *byte = if state >> 40 & 7 == 0 { (state >> 33) as u8 } else { 0 };
            }
            bytes[0] = 14;
            bytes[4] = 2;
            if let Ok(found) = check_outputs(&bytes, 1, &signature, ROOMS) {
                let room = ROOMS.iter().find(|room| room.segment == found[0].segment).unwrap();
                assert!(found[0].offset >= room.start && found[0].offset + found[0].len <= room.end);
            }
        }
    }
}
