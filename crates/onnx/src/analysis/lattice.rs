//! The abstract value of a tensor: how its elements depend on rows, its dimensions, and its elements if they are
//! sizes.
//!
//! Every statement is about two runs: the *joint* one, of N rows, and the *lone* one of any single row of them.
//! Knows nothing of operators.

use std::rc::Rc;

use smallvec::{SmallVec, smallvec};

use crate::file::onnx::Tensor;

/// Maximum number of elements of a tensor whose elements are tracked.
pub(super) const NUMBERS_MAX: usize = 64;

/// An integer as a product of a factor, a power of the number of rows, and sizes that the lone run and the joint
/// run have in common. In the lone run the number of rows is 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Product {
    factor: i64,
    /// The exponent of the number of rows.
    rows: u8,
    /// Sizes, none of them negative, in order.
    symbols: SmallVec<[u32; 2]>,
}

impl Product {
    pub(super) fn of(factor: i64) -> Product {
        Product { factor, rows: 0, symbols: SmallVec::new() }
    }

    /// The number of rows.
    pub(super) fn rows() -> Product {
        Product { rows: 1, ..Product::of(1) }
    }

    pub(super) fn symbol(symbol: u32) -> Product {
        Product { symbols: smallvec![symbol], ..Product::of(1) }
    }

    pub(super) fn constant(&self) -> Option<i64> {
        (self.rows == 0 && self.symbols.is_empty()).then_some(self.factor)
    }

    pub(super) fn is(&self, number: i64) -> bool {
        self.constant() == Some(number)
    }

    pub(super) fn has_rows(&self) -> bool {
        self.rows > 0
    }

    /// Whether it is 0 or more in every run.
    pub(super) fn is_size(&self) -> bool {
        self.factor >= 0
    }

    /// Whether it is 1 or more in every run.
    pub(super) fn is_positive(&self) -> bool {
        self.factor > 0 && self.symbols.is_empty()
    }

    /// `None` on overflow.
    pub(super) fn times(&self, other: &Product) -> Option<Product> {
        let factor = self.factor.checked_mul(other.factor)?;
        if factor == 0 {
            return Some(Product::of(0));
        }
        let mut symbols = self.symbols.clone();
        symbols.extend_from_slice(&other.symbols);
        symbols.sort_unstable();
        Some(Product { factor, rows: self.rows.checked_add(other.rows)?, symbols })
    }

    /// `None` if it may not be an integer.
    pub(super) fn divided_by(&self, other: &Product) -> Option<Product> {
        if other.factor == 0 || self.factor.checked_rem(other.factor)? != 0 {
            return None;
        }
        let mut symbols = self.symbols.clone();
        for symbol in &other.symbols {
            symbols.remove(symbols.iter().position(|own| own == symbol)?);
        }
        let (factor, rows) = (self.factor / other.factor, self.rows.checked_sub(other.rows)?);
        Some(Product { factor, rows, symbols })
    }

    /// `None` if the sum is not a product.
    pub(super) fn plus(&self, other: &Product) -> Option<Product> {
        match () {
            () if self.factor == 0 => Some(other.clone()),
            () if other.factor == 0 => Some(self.clone()),
            () if (self.rows, &self.symbols) == (other.rows, &other.symbols) => {
                let factor = self.factor.checked_add(other.factor)?;
                Some(if factor == 0 { Product::of(0) } else { Product { factor, ..self.clone() } })
            }
            () => None,
        }
    }

    /// The product of all; `None` on overflow.
    pub(super) fn of_all(products: &[Product]) -> Option<Product> {
        products.iter().try_fold(Product::of(1), |all, one| all.times(one))
    }
}

pub(super) type Dims = SmallVec<[Product; 4]>;

/// The elements of a tensor, row-major. `None` is an unknown integer that is equal in both runs.
pub(super) type Numbers = Rc<[Option<Product>]>;

/// How the elements of a tensor depend on rows.
#[derive(Clone, Debug)]
pub(super) enum Spread {
    /// Not at all: lone and joint run have the same tensor.
    Same,
    /// Along `axis` the joint run has the concatenation of its rows' lone runs; the shape is equal otherwise. The
    /// dimensions are known, and that of `axis` is the number of rows times that of a lone run.
    Rows { axis: usize },
    /// The elements contain the number of rows.
    Counts,
    /// In another or an unknown way.
    Mixed(Rc<Blame>),
}

/// The node at which rows were mixed, or could not be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blame {
    /// Whether the operator makes a row's output depend on other rows; otherwise that is unknown.
    pub(super) proven: bool,
    pub(super) operator: String,
    /// The node's name, or that of its output.
    pub(super) node: String,
    /// What it does, or why it can't be followed: the end of a sentence.
    pub(super) why: String,
}

impl std::fmt::Display for Blame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} '{}' {}", self.operator, self.node, self.why)
    }
}

/// The abstract value of a tensor.
#[derive(Clone, Debug)]
pub(super) struct Value<'a> {
    pub(super) spread: Spread,
    /// `None`: the rank is unknown. Always known if the tensor has rows.
    pub(super) dims: Option<Dims>,
    /// Only of integers and booleans (1 and 0).
    pub(super) numbers: Option<Numbers>,
    /// The tensor itself, if it is in the file.
    pub(super) constant: Option<Rc<Tensor<'a>>>,
}

impl<'a> Value<'a> {
    pub(super) fn same(dims: Option<Dims>) -> Value<'a> {
        Value { spread: Spread::Same, dims, numbers: None, constant: None }
    }

    pub(super) fn rows(dims: Dims, axis: usize) -> Value<'a> {
        debug_assert!(
            dims.iter().enumerate().all(|(index, dim)| dim.has_rows() == (index == axis)),
            "{dims:?}"
        );
        Value { spread: Spread::Rows { axis }, ..Value::same(Some(dims)) }
    }

    pub(super) fn mixed(blame: Rc<Blame>) -> Value<'a> {
        Value { spread: Spread::Mixed(blame), ..Value::same(None) }
    }

    /// A tensor of these elements.
    pub(super) fn of_numbers(dims: Dims, numbers: Numbers) -> Value<'a> {
        let counts = numbers.iter().flatten().any(Product::has_rows);
        let spread = if counts { Spread::Counts } else { Spread::Same };
        Value { spread, numbers: Some(numbers), ..Value::same(Some(dims)) }
    }

    /// A list of these elements.
    pub(super) fn list(numbers: impl IntoIterator<Item = Option<Product>>) -> Value<'a> {
        let numbers: Numbers = numbers.into_iter().collect();
        Value::of_numbers(smallvec![Product::of(numbers.len() as i64)], numbers)
    }

    pub(super) fn scalar(number: Option<Product>) -> Value<'a> {
        Value::of_numbers(Dims::new(), [number].into_iter().collect())
    }

    pub(super) fn rank(&self) -> Option<usize> {
        self.dims.as_ref().map(|dims| dims.len())
    }

    pub(super) fn is_same(&self) -> bool {
        matches!(self.spread, Spread::Same)
    }

    /// The axis of the rows.
    pub(super) fn row_axis(&self) -> Option<usize> {
        if let Spread::Rows { axis } = self.spread { Some(axis) } else { None }
    }

    /// The size of a lone run along the rows' axis.
    pub(super) fn block(&self) -> Option<Product> {
        self.dims.as_ref()?.get(self.row_axis()?)?.divided_by(&Product::rows())
    }

    /// The elements at the places given by `take`, as a tensor of `dims`: `take` maps an index of the result to one
    /// of this. `None` if elements or dimensions are unknown.
    pub(super) fn rearranged(&self, dims: &[i64], take: impl Fn(&mut [i64])) -> Option<Value<'a>> {
        let numbers = self.numbers.as_ref()?;
        let own: Vec<i64> = self.dims.as_ref()?.iter().map(Product::constant).collect::<Option<_>>()?;
        let count = dims.iter().try_fold(1usize, |all, dim| all.checked_mul(usize::try_from(*dim).ok()?))?;
        let mut made = Vec::with_capacity(count.min(NUMBERS_MAX));
        for number in 0..i64::try_from(count).ok().filter(|count| *count <= NUMBERS_MAX as i64)? {
            let mut place = vec![0; dims.len()];
            dims.iter().zip(&mut place).rev().fold(number, |rest, (dim, place)| {
                *place = rest % dim;
                rest / dim
            });
            take(&mut place);
            let flat = own
                .iter()
                .zip(&place)
                .try_fold(0i64, |flat, (dim, place)| flat.checked_mul(*dim)?.checked_add(*place))?;
            made.push(numbers.get(usize::try_from(flat).ok()?)?.clone());
        }
        Some(Value::of_numbers(dims.iter().map(|dim| Product::of(*dim)).collect(), made.into()))
    }

    /// The elements, if all of them are constant.
    pub(super) fn constants(&self) -> Option<Vec<i64>> {
        self.numbers.as_ref()?.iter().map(|number| number.as_ref()?.constant()).collect()
    }

    /// The only element, if it is constant.
    pub(super) fn constant_scalar(&self) -> Option<i64> {
        match self.constants()?[..] {
            [only] => Some(only),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_multiplied_divided_and_added_where_that_is_one() {
        let (rows, seven, size) = (Product::rows(), Product::of(7), Product::symbol(3));
        let all = Product::of_all(&[rows.clone(), seven.clone(), size.clone()]).unwrap();
        assert_eq!(all.divided_by(&size).unwrap().divided_by(&rows), Some(seven.clone()));
        assert_eq!(all.divided_by(&Product::of(2)), None);
        assert_eq!(all.divided_by(&Product::symbol(4)), None);
        assert_eq!(seven.divided_by(&rows), None);
        assert_eq!(rows.plus(&rows), rows.times(&Product::of(2)));
        assert_eq!(rows.plus(&seven), None);
        assert!(rows.plus(&rows.times(&Product::of(-1)).unwrap()).unwrap().is(0));
        assert!(all.times(&Product::of(0)).unwrap().is(0));
        assert_eq!(Product::of(i64::MAX).times(&Product::of(2)), None);
        assert!(all.has_rows() && all.is_size() && !all.is_positive() && rows.is_positive());
    }

    #[test]
    fn a_list_with_the_number_of_rows_in_it_counts_rows() {
        let list = Value::list([Some(Product::rows()), None]);
        assert!(matches!(list.spread, Spread::Counts));
        assert_eq!(list.constants(), None);
        assert!(Value::list([Some(Product::of(2)), None]).is_same());
        assert_eq!(Value::scalar(Some(Product::of(2))).constant_scalar(), Some(2));
    }
}
