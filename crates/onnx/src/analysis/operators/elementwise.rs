//! Elementwise operators: rows stay where they are.

use std::rc::Rc;

use smallvec::SmallVec;

use super::family::{Family, MICROSOFT, ONNX};
use crate::analysis::call::{Call, Outcome};
use crate::analysis::lattice::{Blame, Dims, NUMBERS_MAX, Numbers, Product, Spread, Value};
use crate::file::onnx::types;

pub(super) const FAMILIES: &[Family] = &[
    Family::new(
        ONNX,
        &[
            "Abs",
            "Acos",
            "Acosh",
            "Asin",
            "Asinh",
            "Atan",
            "Atanh",
            "BitwiseNot",
            "Ceil",
            "Celu",
            "Cos",
            "Cosh",
            "Elu",
            "Erf",
            "Exp",
            "Floor",
            "Gelu",
            "HardSigmoid",
            "HardSwish",
            "IsInf",
            "IsNaN",
            "LeakyRelu",
            "Log",
            "Mish",
            "Not",
            "Reciprocal",
            "RegexFullMatch",
            "Relu",
            "Round",
            "Selu",
            "Shrink",
            "Sigmoid",
            "Sign",
            "Sin",
            "Sinh",
            "Softplus",
            "Softsign",
            "Sqrt",
            "Swish",
            "Tan",
            "Tanh",
            "ThresholdedRelu",
        ],
        &[
            "alpha",
            "beta",
            "gamma",
            "approximate",
            "detect_negative",
            "detect_positive",
            "bias",
            "lambd",
            "pattern",
        ],
        unary,
    ),
    Family::new(ONNX, &["BitCast"], &["to"], unary),
    Family::new(MICROSOFT, &["Gelu", "QuickGelu"], &["alpha"], unary),
    Family::new(
        ONNX,
        &[
            "BitShift",
            "BitwiseAnd",
            "BitwiseOr",
            "BitwiseXor",
            "Mean",
            "Pow",
            "PRelu",
            "StringConcat",
            "SwiGLU",
        ],
        &["direction", "alpha"],
        broadcasting,
    ),
    Family::new(MICROSOFT, &["BiasAdd", "BiasGelu", "FastGelu"], &[], broadcasting),
    Family::new(
        ONNX,
        &[
            "Add",
            "And",
            "Div",
            "Equal",
            "Greater",
            "GreaterOrEqual",
            "Less",
            "LessOrEqual",
            "Max",
            "Min",
            "Mod",
            "Mul",
            "Or",
            "Sub",
            "Sum",
            "Xor",
        ],
        &["fmod"],
        arithmetic,
    )
    .counting(),
    Family::new(ONNX, &["Where"], &[], choice).counting(),
    Family::new(ONNX, &["Neg"], &[], negative).counting(),
    Family::new(ONNX, &["Identity"], &[], identity).counting(),
    // A served value is a tensor, never empty.
    Family::new(ONNX, &["Optional", "OptionalGetElement"], &["type"], identity).counting(),
    Family::new(ONNX, &["OptionalHasElement"], &[], |call| {
        Ok(vec![Value::scalar(call.optional(0).map(|_| Product::of(1)))])
    })
    .counting(),
    Family::new(ONNX, &["Cast"], &["to", "saturate", "round_mode"], cast).counting(),
    Family::new(ONNX, &["CastLike"], &["saturate", "round_mode"], unary),
    Family::new(ONNX, &["Clip"], &["min", "max"], clip),
    Family::new(ONNX, &["Dropout"], &["ratio", "seed"], dropout),
];

/// The first input, element by element.
pub(super) fn unary<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let x = call.input(0)?;
    Ok(vec![Value { numbers: None, constant: None, ..x.clone() }])
}

fn identity<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    Ok(vec![call.input(0)?.clone()])
}

fn clip<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    call.same_from(1)?;
    unary(call)
}

/// In inference, the identity.
fn dropout<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    if call.version < 7 {
        return Err(call.unknown("is of a version that isn't known"));
    }
    if let Some(training) = call.optional(2)
        && training.constant_scalar() != Some(0)
    {
        return Err(call.dependent("is random, as in training"));
    }
    let kept = Value { numbers: None, constant: None, ..call.input(0)?.clone() };
    Ok(vec![kept.clone(), kept])
}

fn cast<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let x = call.input(0)?;
    let to = call.integer("to")?.ok_or_else(|| call.malformed())?;
    let numbers = match to {
        types::INT64 => x.numbers.clone(),
        types::INT32 => {
            x.numbers.as_ref().map(|numbers| numbers.iter().map(|number| narrow(number.as_ref())).collect())
        }
        types::BOOL => {
            x.numbers.as_ref().map(|numbers| numbers.iter().map(|number| truth(number.as_ref())).collect())
        }
        _ => None,
    };
    match (x.dims.clone(), numbers) {
        (Some(dims), Some(numbers)) => {
            let missing = |(old, new): (&Option<Product>, &Option<Product>)| old.is_some() && new.is_none();
            if matches!(x.spread, Spread::Counts)
                && x.numbers.iter().any(|old| old.iter().zip(&*numbers).any(missing))
            {
                return Err(call.dependent("computes with the number of rows"));
            }
            Ok(vec![Value::of_numbers(dims, numbers)])
        }
        _ if matches!(x.spread, Spread::Counts) => Err(call.dependent("computes with the number of rows")),
        _ => unary(call),
    }
}

/// Its value in 32 bits: sizes are smaller, constants may not be.
fn narrow(number: Option<&Product>) -> Option<Product> {
    let number = number?;
    number.constant().is_none_or(|constant| i32::try_from(constant).is_ok()).then(|| number.clone())
}

fn truth(number: Option<&Product>) -> Option<Product> {
    let number = number?;
    if number.is_positive() {
        return Some(Product::of(1));
    }
    Some(Product::of(i64::from(number.constant()? != 0)))
}

fn negative<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let x = call.input(0)?;
    let (Some(dims), Some(numbers)) = (&x.dims, &x.numbers) else { return unary(call) };
    let negated = numbers.iter().map(|number| number.as_ref()?.times(&Product::of(-1)));
    Ok(vec![Value::of_numbers(dims.clone(), negated.collect())])
}

pub(super) fn broadcasting<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    Ok(vec![broadcast(call, &call.given())?])
}

/// The elementwise combination of `values`, with broadcasting.
pub(super) fn broadcast<'a>(call: &Call<'_, 'a>, values: &[&Value<'a>]) -> Result<Value<'a>, Blame> {
    if values.iter().any(|value| value.dims.is_none()) {
        return match values.iter().all(|value| value.is_same()) {
            true => Ok(Value::same(None)),
            false => Err(call.unknown("has an input of which the dimensions aren't known")),
        };
    }
    let all: Vec<&[Product]> = values.iter().map(|value| value.dims.as_deref().unwrap_or_default()).collect();
    let rank = all.iter().map(|dims| dims.len()).max().unwrap_or(0);
    let mut rows: Option<(usize, &Product)> = None;
    for (value, dims) in values.iter().zip(&all) {
        let Some(axis) = value.row_axis() else { continue };
        let here = (rank - dims.len() + axis, &dims[axis]);
        match rows {
            Some((other, _)) if other != here.0 => return Err(call.dependent("pairs rows with each other")),
            Some((_, size)) if size != here.1 => return Err(call.unknown("pairs rows of unlike sizes")),
            _ => rows = Some(here),
        }
    }
    let mut dims = Dims::new();
    for axis in 0..rank {
        let sizes = all.iter().filter_map(|dims| dims.get((axis + dims.len()).checked_sub(rank)?));
        // A size of 1 is broadcast.
        let sizes: SmallVec<[&Product; 4]> = sizes.filter(|size| !size.is(1)).collect();
        if let Some((_, size)) = rows.filter(|(row_axis, _)| *row_axis == axis) {
            // Another size would match the joint run by chance, and the lone run always.
            if sizes.iter().any(|other| *other != size) {
                return Err(call.unknown("combines rows with a tensor that has others of its own"));
            }
            dims.push(size.clone());
            continue;
        }
        let known = sizes.iter().find(|size| size.constant().is_some());
        dims.push(match (&sizes[..], known) {
            ([], _) => Product::of(1),
            ([first, rest @ ..], _) if rest.iter().all(|other| other == first) => (*first).clone(),
            (_, Some(known)) => (*known).clone(),
            _ => call.fresh(),
        });
    }
    Ok(match rows {
        Some((axis, _)) => Value::rows(dims, axis),
        None => Value::same(Some(dims)),
    })
}

fn arithmetic<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let values = call.given();
    let counts = values.iter().any(|value| matches!(value.spread, Spread::Counts));
    let combine = |a: &Product, b: &Product| combine(call.node.operator, a, b);
    if let Some((dims, columns)) = columns(&values) {
        let numbers =
            columns.into_iter().map(|column| fold(&column, &combine)).collect::<Result<Numbers, _>>();
        return match numbers {
            Ok(numbers) => Ok(vec![Value::of_numbers(dims, numbers)]),
            Err(Lost) => Err(call.dependent("computes with the number of rows")),
        };
    }
    if counts {
        return Err(call.dependent("computes with the number of rows"));
    }
    broadcasting(call)
}

/// The result contains the number of rows in a way that can't be followed.
struct Lost;

/// The elements of `values` side by side, if all are known: single ones are repeated.
fn columns<'v>(values: &[&'v Value<'_>]) -> Option<(Dims, Vec<Vec<Option<&'v Product>>>)> {
    let shaped = values.iter().filter(|value| value.numbers.as_ref().is_some_and(|all| all.len() != 1));
    let widest = values.iter().max_by_key(|value| value.rank())?;
    let dims = shaped.clone().next().unwrap_or(widest).dims.clone()?;
    let count =
        usize::try_from(Product::of_all(&dims)?.constant()?).ok().filter(|count| *count <= NUMBERS_MAX)?;
    let mut columns = vec![Vec::new(); count];
    for value in values {
        let numbers = value.numbers.as_ref()?;
        let repeated = numbers.len() == 1 && value.rank()? <= dims.len();
        if !repeated && value.dims.as_ref()? != &dims {
            return None;
        }
        for (index, column) in columns.iter_mut().enumerate() {
            column.push(numbers[if repeated { 0 } else { index }].as_ref());
        }
    }
    Some((dims, columns))
}

fn fold(
    column: &[Option<&Product>],
    combine: &dyn Fn(&Product, &Product) -> Option<Product>,
) -> Result<Option<Product>, Lost> {
    let known: Option<Vec<&Product>> = column.iter().copied().collect();
    let folded = known.and_then(|known| {
        let (first, rest) = known.split_first()?;
        rest.iter().try_fold((*first).clone(), |all, next| combine(&all, next))
    });
    match folded {
        None if column.iter().flatten().any(|number| number.has_rows()) => Err(Lost),
        folded => Ok(folded),
    }
}

/// `a` and `b` under an operator of integers or booleans; `None` if unknown.
fn combine(operator: &str, a: &Product, b: &Product) -> Option<Product> {
    let constants = a.constant().zip(b.constant());
    let truth = |truth: bool| Some(Product::of(i64::from(truth)));
    match operator {
        "Add" | "Sum" => a.plus(b),
        "Sub" => a.plus(&b.times(&Product::of(-1))?),
        "Mul" => a.times(b),
        "Div" => match constants {
            Some((a, b)) => a.checked_div(b).map(Product::of),
            None => a.divided_by(b),
        },
        "Mod" => constants.filter(|(a, b)| *a >= 0 && *b > 0).map(|(a, b)| Product::of(a % b)),
        "Equal" => match constants {
            Some((a, b)) => truth(a == b),
            None if a == b => truth(true),
            None => differ(a, b).then(|| Product::of(0)),
        },
        "Greater" => constants.and_then(|(a, b)| truth(a > b)),
        "GreaterOrEqual" => constants.and_then(|(a, b)| truth(a >= b)),
        "Less" => constants.and_then(|(a, b)| truth(a < b)),
        "LessOrEqual" => constants.and_then(|(a, b)| truth(a <= b)),
        "Max" | "Min" if a == b => Some(a.clone()),
        "Max" => constants.map(|(a, b)| Product::of(a.max(b))),
        "Min" => constants.map(|(a, b)| Product::of(a.min(b))),
        "And" => constants.map(|(a, b)| Product::of(a & b)),
        "Or" => constants.map(|(a, b)| Product::of(a | b)),
        "Xor" => constants.map(|(a, b)| Product::of(a ^ b)),
        _ => None,
    }
}

/// Whether they differ in every run.
fn differ(a: &Product, b: &Product) -> bool {
    let apart = |size: &Product, other: &Product| {
        other.constant().is_some_and(|other| other < 0 && size.is_size() || other <= 0 && size.is_positive())
    };
    apart(a, b) || apart(b, a)
}

fn choice<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let values = [call.input(0)?, call.input(1)?, call.input(2)?];
    let counts = values.iter().any(|value| matches!(value.spread, Spread::Counts));
    if let Some((dims, columns)) = columns(&values) {
        let chosen = columns.into_iter().map(|column| {
            let [condition, yes, no] = column[..] else { return Err(Lost) };
            match condition.map(Product::constant) {
                Some(Some(condition)) => Ok((if condition != 0 { yes } else { no }).cloned()),
                _ if yes == no && yes.is_some() => Ok(yes.cloned()),
                _ if [condition, yes, no].into_iter().flatten().any(Product::has_rows) => Err(Lost),
                _ => Ok(None),
            }
        });
        if let Ok(numbers) = chosen.collect::<Result<Rc<[_]>, _>>() {
            return Ok(vec![Value::of_numbers(dims, numbers)]);
        }
    }
    if counts {
        return Err(call.dependent("computes with the number of rows"));
    }
    broadcasting(call)
}
