//! What makes two requests equal: a digest of everything that the answer depends on.
//!
//! Reads a tenant and tensors, hands on 32 bytes. Knows nothing of what is kept under them.

use inferd_types::{Tenant, Tensor};

/// The digest of a request.
pub(crate) type Key = [u8; 32];

/// Digests the requests of one load of a model.
///
/// BLAKE3, because two requests of one digest get one answer: nobody may be able to make such a pair, which rules out
/// the fast hashes of hash tables. Keyed with the model, so that no digest of one model means anything in another; the
/// key is no secret, and need not be one.
pub(crate) struct Digest([u8; 32]);

impl Digest {
    /// For `model` in `version`.
    pub(crate) fn new(model: &str, version: u64) -> Digest {
        let mut hasher = blake3::Hasher::new_derive_key("inferd 2026 response cache: model and version");
        hasher.update(&version.to_le_bytes()).update(model.as_bytes());
        Digest(hasher.finalize().into())
    }

    /// The key of a request of `tenant` with these inputs, which stand in the signature's order: the place is the name.
    /// A tenant's own requests alone are equal: by how soon an answer comes, none may learn what another has asked.
    ///
    /// Nothing else of a request changes what the model gives: which outputs are sent, and in which form, is decided
    /// when the answer is encoded. Numbers are told apart by their bytes: 0.0 and -0.0 are two requests.
    pub(crate) fn of(&self, tenant: Tenant, inputs: &[Tensor]) -> Key {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&tenant.id.to_le_bytes());
        // Every part is preceded by its length, so that no two lists of inputs are the same bytes.
        hasher.update(&(inputs.len() as u64).to_le_bytes());
        for tensor in inputs {
            hasher.update(&[tensor.datatype as u8, tensor.shape.len() as u8]);
            for dim in &tensor.shape {
                hasher.update(&dim.to_le_bytes());
            }
            hasher.update(&(tensor.data.len() as u64).to_le_bytes()).update(&tensor.data);
        }
        hasher.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use inferd_types::DataType;

    use super::*;

    const ANYBODY: Tenant = Tenant { id: 0, weight: 1 };

    fn tensor(datatype: DataType, shape: &[u64], data: &'static [u8]) -> Tensor {
        Tensor { datatype, shape: shape.iter().copied().collect(), data: Bytes::from_static(data) }
    }

    #[test]
    fn whatever_changes_the_answer_changes_the_key() {
        let digest = Digest::new("m", 1);
        let base = || vec![tensor(DataType::Int8, &[2, 1], b"ab"), tensor(DataType::Int8, &[1], b"c")];
        let changed: Vec<Vec<Tensor>> = vec![
            base(),
            vec![tensor(DataType::Uint8, &[2, 1], b"ab"), tensor(DataType::Int8, &[1], b"c")],
            vec![tensor(DataType::Int8, &[1, 2], b"ab"), tensor(DataType::Int8, &[1], b"c")],
            vec![tensor(DataType::Int8, &[2], b"ab"), tensor(DataType::Int8, &[1], b"c")],
            vec![tensor(DataType::Int8, &[2, 1], b"ax"), tensor(DataType::Int8, &[1], b"c")],
            vec![tensor(DataType::Int8, &[1], b"c"), tensor(DataType::Int8, &[2, 1], b"ab")],
            vec![tensor(DataType::Int8, &[2, 1], b"ab")],
            vec![],
        ];
        let mut keys: Vec<Key> = changed.iter().map(|inputs| digest.of(ANYBODY, inputs)).collect();
        keys.push(Digest::new("m", 2).of(ANYBODY, &base()));
        keys.push(Digest::new("n", 1).of(ANYBODY, &base()));
        keys.push(digest.of(Tenant { id: 1, weight: 1 }, &base()));
        for (place, key) in keys.iter().enumerate() {
            assert!(!keys[..place].contains(key), "number {place} equals another");
        }
        assert_eq!(Digest::new("m", 1).of(Tenant { weight: 7, ..ANYBODY }, &base()), keys[0]);
    }
}
