//! Makes inputs up, always the same ones.
//!
//! Reads what a model declares of its inputs, hands on tensors in ranges that most models can take.
//! Knows nothing of what the numbers mean to the model.

use inferd_types::{DataType, Shape, Tensor, element_count};

use crate::graph::{Dim, Port};

/// How inputs are made up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Recipe {
    /// Size of every free dimension.
    pub(crate) size: u64,
    /// Integers are from 0 to this.
    pub(crate) integer_max: u64,
    /// What floating-point numbers are like.
    pub(crate) character: Character,
}

/// What the numbers of a row are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Character {
    /// About as large as this, of either sign.
    Normal(f64),
    /// From 0 to this.
    Uniform(f64),
    /// All of them this; integers are the least where it is not positive, else the greatest.
    Constant(f64),
}

/// Most elements of one made-up tensor: the probe should not need more memory than the model will.
const ELEMENTS_MAX: u64 = 1 << 24;

const WORDS: [&str; 8] = ["a", "yes", "no", "red", "42", "the cat sat", "", "\u{e9}t\u{e9}"];

/// What to try, likeliest first. Small sizes are cheap; some convolutional models need one that is large enough
/// or a multiple of 32; masks and segment ids take only 0 and 1.
pub(crate) fn recipes(inputs: &[Port]) -> Vec<Recipe> {
    let free = inputs.iter().any(|port| port.dims().iter().any(|dim| !dim.is_fixed()));
    let sizes: &[u64] = if free { &[8, 32, 1, 3, 64, 224] } else { &[1] };
    let whole = |port: &Port| !is_float(port.datatype) && port.datatype != DataType::Bytes;
    let ranges: &[u64] = if inputs.iter().any(whole) { &[9, 1] } else { &[9] };
    let with = |integer_max: &u64| {
        let integer_max = *integer_max;
        sizes.iter().map(move |size| Recipe { size: *size, integer_max, character: Character::Normal(1.0) })
    };
    ranges.iter().flat_map(with).collect()
}

/// Inputs made up after `recipe`; dimension 0 of each is `rows` where that is given. `None` where one would be
/// too large.
pub(crate) fn inputs(ports: &[Port], recipe: Recipe, rows: Option<u64>, seed: u64) -> Option<Vec<Tensor>> {
    let mut random = Random::new(seed);
    ports.iter().map(|port| tensor(port, recipe, rows, &mut random)).collect()
}

fn tensor(port: &Port, recipe: Recipe, rows: Option<u64>, random: &mut Random) -> Option<Tensor> {
    let size = |(axis, dim): (usize, &Dim)| match (axis, rows, dim) {
        (0, Some(rows), _) => rows,
        (_, _, Dim::Fixed(size)) => *size,
        _ => recipe.size,
    };
    let shape: Shape = port.dims().iter().enumerate().map(size).collect();
    let count = element_count(&shape).ok().filter(|count| *count <= ELEMENTS_MAX)?;
    let mut data = Vec::new();
    for _ in 0..count {
        push_element(&mut data, port.datatype, recipe, random);
    }
    Tensor::new(port.datatype, shape, data.into()).ok()
}

fn push_element(data: &mut Vec<u8>, datatype: DataType, recipe: Recipe, random: &mut Random) {
    let (float, integer) = match recipe.character {
        Character::Normal(magnitude) => (random.normal() * magnitude, random.next()),
        Character::Uniform(most) => (random.unit() * most, random.next()),
        Character::Constant(value) => (value, if value > 0.0 { recipe.integer_max } else { 0 }),
    };
    let integer = integer % (recipe.integer_max + 1);
    match datatype {
        DataType::Bool => data.push(u8::from(integer % 2 == 1)),
        DataType::Fp16 => data.extend(half::f16::from_f64(float).to_le_bytes()),
        DataType::Bf16 => data.extend(half::bf16::from_f64(float).to_le_bytes()),
        DataType::Fp32 => data.extend((float as f32).to_le_bytes()),
        DataType::Fp64 => data.extend(float.to_le_bytes()),
        DataType::Bytes => {
            let word = WORDS[(random.next() % WORDS.len() as u64) as usize];
            data.extend((word.len() as u32).to_le_bytes());
            data.extend(word.as_bytes());
        }
        DataType::Uint8
        | DataType::Uint16
        | DataType::Uint32
        | DataType::Uint64
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64 => {
            // Small and not negative, so the low bytes are the number in every width.
            data.extend(&integer.to_le_bytes()[..datatype.size().unwrap_or(8)]);
        }
    }
}

/// The same rows one after the other as one batch.
pub(crate) fn join(rows: &[Vec<Tensor>]) -> Option<Vec<Tensor>> {
    let first = rows.first()?;
    (0..first.len())
        .map(|index| {
            let mut shape = first[index].shape.clone();
            *shape.first_mut()? = rows.len() as u64;
            let data: Vec<u8> = rows.iter().flat_map(|row| row[index].data.iter().copied()).collect();
            Tensor::new(first[index].datatype, shape, data.into()).ok()
        })
        .collect()
}

pub(crate) fn is_float(datatype: DataType) -> bool {
    matches!(datatype, DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64)
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    /// A stream of its own for each seed: the states of two are far apart.
    fn new(seed: u64) -> Random {
        Random(Random(seed ^ 0x5851_f42d_4c95_7f2d).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// About normal: the sum of twelve uniform numbers, less its mean, has a variance of one.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(datatype: DataType, dims: Vec<Dim>) -> Port {
        Port { name: c"x".into(), datatype, dims: Some(dims) }
    }

    #[test]
    fn every_type_can_be_made_up_and_the_same_seed_gives_the_same() {
        let recipe = Recipe { size: 3, integer_max: 9, character: Character::Normal(1.0) };
        for datatype in DataType::ALL {
            let ports = [port(datatype, vec![Dim::Free, Dim::Fixed(2), Dim::Named("t".into())])];
            let made = inputs(&ports, recipe, Some(1), 7).unwrap();
            assert_eq!(&made[0].shape[..], [1, 2, 3], "{datatype}");
            assert_eq!(made, inputs(&ports, recipe, Some(1), 7).unwrap());
            assert_ne!(made, inputs(&ports, recipe, Some(1), 8).unwrap(), "{datatype}");
        }
    }

    #[test]
    fn rows_are_joined_in_order_and_a_huge_tensor_is_not_made() {
        let recipe = Recipe { size: 3, integer_max: 9, character: Character::Normal(1.0) };
        let ports = [port(DataType::Bytes, vec![Dim::Free, Dim::Fixed(2)])];
        let rows: Vec<_> = (0..3).map(|seed| inputs(&ports, recipe, Some(1), seed).unwrap()).collect();
        let joined = join(&rows).unwrap();
        assert_eq!(&joined[0].shape[..], [3, 2]);
        assert!(joined[0].data.starts_with(&rows[0][0].data) && joined[0].data.ends_with(&rows[2][0].data));
        assert!(inputs(&[port(DataType::Int8, vec![Dim::Fixed(1 << 40)])], recipe, None, 0).is_none());
    }
}
