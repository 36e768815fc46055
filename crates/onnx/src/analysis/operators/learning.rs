//! Operators of classical machine learning: each row of a matrix is a sample.

use smallvec::smallvec;

use super::family::{Family, LEARNING, ONNX};
use super::neural::all_by_rows;
use crate::analysis::call::{Call, Outcome};
use crate::analysis::lattice::{Blame, Dims, Product, Value};
use crate::file::wire::Malformed;

const TREES: &[&str] = &[
    "aggregate_function",
    "base_values",
    "base_values_as_tensor",
    "class_ids",
    "class_nodeids",
    "class_treeids",
    "class_weights",
    "class_weights_as_tensor",
    "classlabels_int64s",
    "classlabels_strings",
    "leaf_targetids",
    "leaf_weights",
    "membership_values",
    "n_targets",
    "nodes_falseleafs",
    "nodes_falsenodeids",
    "nodes_featureids",
    "nodes_hitrates",
    "nodes_hitrates_as_tensor",
    "nodes_missing_value_tracks_true",
    "nodes_modes",
    "nodes_nodeids",
    "nodes_splits",
    "nodes_treeids",
    "nodes_trueleafs",
    "nodes_truenodeids",
    "nodes_values",
    "nodes_values_as_tensor",
    "post_transform",
    "target_ids",
    "target_nodeids",
    "target_treeids",
    "target_weights",
    "target_weights_as_tensor",
    "tree_roots",
];

const VECTORS: &[&str] = &[
    "classlabels_ints",
    "classlabels_strings",
    "coefficients",
    "kernel_params",
    "kernel_type",
    "n_supports",
    "one_class",
    "post_transform",
    "prob_a",
    "prob_b",
    "rho",
    "support_vectors",
    "vectors_per_class",
];

const LINEAR: &[&str] = &[
    "classlabels_ints",
    "classlabels_strings",
    "coefficients",
    "intercepts",
    "multi_class",
    "post_transform",
    "targets",
];

pub(super) const FAMILIES: &[Family] = &[
    Family::new(LEARNING, &["LinearClassifier"], LINEAR, classifier),
    Family::new(LEARNING, &["SVMClassifier"], VECTORS, classifier),
    Family::new(LEARNING, &["TreeEnsembleClassifier"], TREES, classifier),
    Family::new(LEARNING, &["LinearRegressor"], LINEAR, |call| regressor(call, Some("targets"))),
    Family::new(LEARNING, &["SVMRegressor"], VECTORS, |call| regressor(call, None)),
    Family::new(LEARNING, &["TreeEnsemble", "TreeEnsembleRegressor"], TREES, |call| {
        regressor(call, Some("n_targets"))
    }),
    Family::new(
        LEARNING,
        &["Binarizer", "CategoryMapper", "LabelEncoder"],
        &[
            "threshold",
            "cats_int64s",
            "cats_strings",
            "classes_strings",
            "default_float",
            "default_int64",
            "default_string",
            "default_tensor",
            "keys_floats",
            "keys_int64s",
            "keys_strings",
            "keys_tensor",
            "values_floats",
            "values_int64s",
            "values_strings",
            "values_tensor",
        ],
        element,
    ),
    Family::new(
        LEARNING,
        &["Imputer", "Normalizer", "Scaler"],
        &[
            "imputed_value_floats",
            "imputed_value_int64s",
            "replaced_value_float",
            "replaced_value_int64",
            "norm",
            "offset",
            "scale",
        ],
        sample,
    ),
    Family::new(LEARNING, &["OneHotEncoder"], &["cats_int64s", "cats_strings", "zeros"], one_hot),
    Family::new(LEARNING, &["FeatureVectorizer"], &["inputdimensions"], features),
    Family::new(LEARNING, &["ArrayFeatureExtractor"], &[], extract),
    Family::new(
        ONNX,
        &["TfIdfVectorizer"],
        &[
            "max_gram_length",
            "max_skip_count",
            "min_gram_length",
            "mode",
            "ngram_counts",
            "ngram_indexes",
            "pool_int64s",
            "pool_strings",
            "weights",
        ],
        |call| regressor(call, None),
    ),
];

/// The dimensions of the first input, of which each row is a sample. `None` if it is the same in every run and they
/// are unknown.
///
/// # Errors
/// If rows are not samples: a list counts as a single one.
fn samples<'v, 'a>(call: &'v Call<'_, 'a>) -> Result<Option<&'v Dims>, Blame> {
    let x = call.input(0)?;
    match (x.row_axis(), &x.dims) {
        (None, dims) => Ok(dims.as_ref()),
        (Some(0), Some(dims)) if dims.len() == 2 => Ok(Some(dims)),
        (Some(_), Some(dims)) if dims.len() == 1 => Err(call.dependent("takes all rows for one sample")),
        _ => Err(call.unknown("has samples that can't be followed")),
    }
}

/// A label and scores per sample.
fn classifier<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let Some(dims) = samples(call)? else { return Ok(vec![Value::same(None); 2]) };
    let count =
        if dims.len() == 1 { Product::of(1) } else { dims.first().ok_or_else(|| call.malformed())?.clone() };
    let width = classes(call)?.map_or_else(|| call.fresh(), |classes| Product::of(classes as i64));
    Ok(vec![call.row_wise(&count, []), call.row_wise(&count, [width])])
}

/// The number of scores per sample, if that is the number of labels.
fn classes(call: &Call<'_, '_>) -> Result<Option<usize>, Blame> {
    let labels = |names: [&str; 2]| {
        let counts = names.map(|name| length(call, name));
        let [texts, integers] = counts;
        Ok::<_, Blame>(texts?.unwrap_or(0).max(integers?.unwrap_or(0)))
    };
    match call.node.operator {
        "TreeEnsembleClassifier" => {
            let labels = labels(["classlabels_strings", "classlabels_int64s"])?;
            Ok(Some(labels).filter(|labels| *labels > 1))
        }
        "LinearClassifier" => {
            let labels = labels(["classlabels_strings", "classlabels_ints"])?;
            let intercepts = match call.attribute("intercepts")? {
                Some(attribute) => attribute.floats().map_err(|Malformed| call.malformed())?.len(),
                None => 0,
            };
            // A single score belongs to the second class; the first has the rest.
            Ok(Some(labels).filter(|labels| intercepts == *labels || (intercepts, *labels) == (1, 2)))
        }
        // It has a score per class, or per pair of classes.
        _ => Ok(None),
    }
}

/// The length of an attribute that is a list of texts or integers.
fn length(call: &Call<'_, '_>, name: &str) -> Result<Option<usize>, Blame> {
    let Some(attribute) = call.attribute(name)? else { return Ok(None) };
    match (attribute.texts(), attribute.integers()) {
        (Ok(texts), Ok(integers)) => Ok(Some(texts.len().max(integers.len()))),
        _ => Err(call.malformed()),
    }
}

/// As many numbers per sample as `targets` says.
fn regressor<'a>(call: &Call<'_, 'a>, targets: Option<&str>) -> Outcome<'a> {
    let Some(dims) = samples(call)? else { return Ok(vec![Value::same(None)]) };
    let targets = match targets {
        Some(name) => call.integer(name)?,
        None => None,
    };
    let width = targets.map_or_else(|| call.fresh(), Product::of);
    match dims.len() {
        // Some kinds return a list for a list.
        0 | 1 => Ok(vec![Value::same(None)]),
        _ => Ok(vec![call.row_wise(&dims[0], [width])]),
    }
}

fn element<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    Ok(vec![Value { numbers: None, constant: None, ..call.input(0)?.clone() }])
}

/// The same shape, by samples.
fn sample<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    // One number for all features is one for all elements.
    let mut longest = if call.node.operator == "Normalizer" { usize::MAX } else { 0 };
    for name in ["offset", "scale", "imputed_value_floats"] {
        if let Some(attribute) = call.attribute(name)? {
            longest = longest.max(attribute.floats().map_err(|Malformed| call.malformed())?.len());
        }
    }
    longest = longest.max(length(call, "imputed_value_int64s")?.unwrap_or(0));
    if longest > 1 {
        samples(call)?;
    }
    element(call)
}

fn one_hot<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let x = call.input(0)?;
    let Some(dims) = &x.dims else { return Ok(vec![Value::same(None)]) };
    let count = match length(call, "cats_int64s")? {
        Some(count) => count,
        None => length(call, "cats_strings")?.ok_or_else(|| call.malformed())?,
    };
    let mut made = dims.clone();
    made.push(Product::of(count as i64));
    Ok(vec![call.like_rows(x.row_axis(), made)])
}

/// Columns of several tensors, side by side.
fn features<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let Some(rows) = all_by_rows(call)? else { return Ok(vec![Value::same(None)]) };
    if call.given().iter().any(|value| value.rank() != Some(2)) {
        return Err(call.unknown("has samples that can't be followed"));
    }
    Ok(vec![call.row_wise(&rows, [call.fresh()])])
}

/// Elements along the last axis, by index.
fn extract<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let (x, places) = (call.input(0)?, call.input(1)?);
    if x.is_same() && places.is_same() {
        return Ok(vec![Value::same(None)]);
    }
    let (dims, by) = (call.dims(x)?, call.dims(places)?);
    let count = Product::of_all(by).ok_or_else(|| call.malformed())?;
    let (_, rest) = dims.split_last().ok_or_else(|| call.malformed())?;
    match (x.row_axis(), places.row_axis()) {
        (Some(rows), None) if rows < rest.len() => {
            let made = rest.iter().cloned().chain([count]).collect();
            Ok(vec![call.like_rows(Some(rows), made)])
        }
        (Some(_), None) => Err(call.dependent("takes rows by their number")),
        // The indices, in any shape, are read as a list.
        (None, Some(rows)) if rest.is_empty() && by[..rows].iter().all(|dim| dim.is(1)) => {
            Ok(vec![Value::rows(smallvec![Product::of(1), count], 1)])
        }
        _ => Err(call.unknown("takes from rows by what can't be followed")),
    }
}
