//! The analysis of small graphs, by family: proofs, and counterexamples.

mod model;

use super::{Verdict, verdict};
use model::{model, with_function};

/// The verdict on a model of version 17.
fn outcome(text: &str) -> String {
    outcome_at(17, text)
}

fn outcome_at(opset: i64, text: &str) -> String {
    outcome_of(&model(opset, text))
}

fn outcome_of(file: &[u8]) -> String {
    match verdict(file) {
        Verdict::Independent => "independent".into(),
        Verdict::Dependent(how) => format!("dependent: {how}"),
        Verdict::Unknown(why) => format!("unknown: {why}"),
    }
}

#[track_caller]
fn independent(texts: &[&str]) {
    for text in texts {
        assert_eq!(outcome(text), "independent", "{text}");
    }
}

/// Each text is followed by a part of its verdict.
#[track_caller]
fn not_independent(texts: &[(&str, &str)]) {
    for (text, words) in texts {
        let found = outcome(text);
        assert!(found.contains(words) && found != "independent", "{text}\n{found}");
    }
}

#[test]
fn elements_stay_in_their_rows() {
    independent(&[
        "x[n,4] -> y; w: float[4]; t = Mul(x, w); y = Relu(t)",
        "x[n,4] -> y; w: float[1,4]; y = Sub(w, x)",
        "x[n] -> y; w: float[1]; y = Pow(x, w)",
        "x[n,4] z[n,4] -> y; c = Greater(x, z); y = Where(c, x, z)",
        "x[n,4] z[n,1] -> y; y = Add(x, z)",
        "x[n,3,4] -> y; w: float[3,1]; y = Mod(x, w) fmod=1",
        "x[n,4] -> y; w: float[4]; y = PRelu(x, w)",
        "x[n,4] -> y; low: float[]; y = Clip(x, low)",
        "x[n,4] -> y; y = Dropout(x)",
        "x[n,4] -> y; r: float[]; t: bool scalar 0; y = Dropout(x, r, t)",
        "x[n,4] -> y; w: float[4]; t = ms.BiasGelu(x, w); y = ms.QuickGelu(t)",
    ]);
    not_independent(&[
        (
            "x[n,4] -> y; w: float[3,4]; y = Add(x, w)",
            "unknown: Add 'y' combines rows with a tensor that has others",
        ),
        ("x[n,4] z[n] -> y; y = Add(x, z)", "dependent: Add 'y' pairs rows with each other"),
        ("x[n,n] z[n] -> y; y = Add(x, z)", "pairs rows with each other"),
        (
            "x[n,4] -> y; r: float[]; t: bool scalar 1; y = Dropout(x, r, t)",
            "dependent: Dropout 'y' is random",
        ),
        ("x[n,4] -> y; y = RandomNormalLike(x)", "dependent: RandomNormalLike 'y' is random"),
        ("x[n,4] -> y; b = Bernoulli(x); y = Mul(x, b)", "Bernoulli 'b' is random"),
        ("x[n,4] -> y; y = ms.Sampling(x)", "unknown: Sampling 'y' isn't known"),
        (
            "x[n,4] -> y; y = Relu(x) sideways=1",
            "unknown: Relu 'y' has an attribute 'sideways' that isn't known",
        ),
    ]);
    assert!(outcome_at(99, "x[n] -> y; y = Relu(x)").contains("of version 99"));
    assert!(outcome_at(6, "x[n] -> y; y = Dropout(x)").contains("version"));
}

#[test]
fn sums_over_rows_are_found_and_others_are_not() {
    independent(&[
        "x[n,4] -> y; y = ReduceMax(x) axes=1, keepdims=0",
        "x[n,4] -> y; y = ReduceMean(x) axes=-1,",
        "x[n,3,4] -> y; a: int64 1,2; y = ReduceSum(x, a) keepdims=0",
        "x[n,4] -> y; y = ReduceSum(x) noop_with_empty_axes=1",
        "x[n,4] -> y; y = ArgMax(x) axis=1 keepdims=0",
        "x[n,4] -> y, z; k: int64 2; y, z = TopK(x, k)",
        "x[n,4] -> y; a: int64 scalar 1; y = CumSum(x, a)",
        // Sums over the columns of the transposed matrix are sums over rows.
        "x[n,4] -> y; t = Transpose(x); y = ReduceSum(t, a) keepdims=0; a: int64 0",
    ]);
    not_independent(&[
        (
            "x[n,4] -> y; m = ReduceMax(x) axes=0,; y = Div(x, m)",
            "dependent: ReduceMax 'm' reduces over the rows",
        ),
        ("x[n,4] -> y; m = ReduceMax(x); y = Div(x, m)", "dependent: ReduceMax 'm' reduces over the rows"),
        ("x[n,4] -> y; s: float[]; m = ReduceMin(x); y = Mul(x, m)", "reduces over the rows"),
        ("x[n,4] -> y; y = ArgMax(x)", "dependent: ArgMax 'y' reduces over the rows"),
        ("x[n,4] -> y, z; k: int64 2; y, z = TopK(x, k) axis=0", "dependent: TopK 'y' sorts the rows"),
        ("x[n,4] -> y; a: int64 scalar -2; y = CumSum(x, a)", "dependent: CumSum 'y' runs along the rows"),
        ("x[n,4] a[n] -> y; y = ReduceSum(x, a)", "unknown: ReduceSum 'y' has axes that aren't constant"),
    ]);
    // Axes are an input in later versions: as an attribute they are unknown there.
    assert!(outcome_at(18, "x[n,4] -> y; y = ReduceMax(x) axes=1,").starts_with("dependent"));
    assert_eq!(outcome_at(18, "x[n,4] -> y; a: int64 1; y = ReduceMax(x, a)"), "independent");
}

#[test]
fn normalisation_is_along_axes_that_changed_with_the_version() {
    independent(&[
        "x[n,4] -> y; y = Softmax(x)",
        "x[n,4,5] -> y; y = LogSoftmax(x) axis=1",
        "x[n,4,5] -> y; s: float[5]; y = LayerNormalization(x, s)",
        "x[n,4,5] -> y; s: float[4,5]; y = LayerNormalization(x, s, s) axis=1",
        "x[n,4,5] -> y; s: float[4]; y = InstanceNormalization(x, s, s)",
        "x[n,4,5] -> y; s: float[4]; y = BatchNormalization(x, s, s, s, s)",
        "x[n,4] -> y; y = LpNormalization(x)",
        "x[n,4,5,6] -> y; y = MeanVarianceNormalization(x) axes=2,3",
        "x[n,4,5,6] -> y; y = LRN(x) size=3",
        "x[n,4,5] z[n,4,5] -> y; s: float[5]; y = ms.SkipLayerNormalization(x, z, s, s)",
        // The commonest classifier: its scores are normalized sample by sample.
        "x[n,4] -> y, p; y, s = ml.LinearClassifier(x) classlabels_ints=0,1,2 intercepts=f1,2,3; p = ml.Normalizer(s) norm=\"L1\"",
    ]);
    not_independent(&[
        ("x[n,4] -> y; y = Softmax(x) axis=0", "dependent: Softmax 'y' normalises over the rows"),
        ("x[n] -> y; y = Softmax(x)", "dependent: Softmax 'y' normalises over the rows"),
        ("x[n] -> y; y = ml.Normalizer(x) norm=\"MAX\"", "takes all rows for one sample"),
        ("x[n,4] -> y; s: float[4]; y = LayerNormalization(x, s) axis=0", "normalises over the rows"),
        ("x[n,4] -> y; s: float[n,4]; y = LpNormalization(x) axis=0", "normalises over the rows"),
        ("x[n,4,5,6] -> y; y = MeanVarianceNormalization(x)", "normalises over the rows"),
        (
            "x[n,4,5] -> y; s: float[4]; y = BatchNormalization(x, s, s, s, s) training_mode=1",
            "dependent: BatchNormalization 'y' normalises over the rows, as in training",
        ),
        ("x[n,4,5] -> y; s: float[3,1,5]; y = LayerNormalization(x, s)", "combines rows with"),
    ]);
    // Before version 13 all dimensions from axis 1 on are normalized together, and axis 1 is the default.
    assert_eq!(outcome_at(11, "x[n,4,5] -> y; y = Softmax(x)"), "independent");
    assert_eq!(outcome_at(11, "x[n,4,5] -> y; y = Softmax(x) axis=2"), "independent");
    assert!(
        outcome_at(11, "x[n,4,5] -> y; t = Transpose(x) perm=1,2,0; y = Softmax(t)")
            .contains("normalises over the rows")
    );
    let training = "x[n,4,5] -> y; s: float[4]; y, m, v = BatchNormalization(x, s, s, s, s)";
    assert!(outcome_at(9, training).contains("as in training"));
}

#[test]
fn products_keep_rows_apart_unless_they_sum_over_them_or_pair_them() {
    independent(&[
        "x[n,4] -> y; w: float[4,3]; y = MatMul(x, w)",
        "x[n,5,4] -> y; w: float[4,3]; y = MatMul(x, w)",
        "x[n,5,4] z[n,4,3] -> y; y = MatMul(x, z)",
        "x[n,4] -> y; w: float[3,4]; c: float[3]; y = Gemm(x, w, c) transB=1",
        "x[n,4] -> y; w: float[3,4]; c: float[1,3]; y = Gemm(x, w, c) transB=1",
        "x[n,5,4] -> y; w: float[4]; y = MatMul(x, w)",
        "x[n,4] -> y; w: float[3,4]; y = ms.FusedMatMul(x, w) transB=1",
        "x[n,4] -> y; w: float[3,4]; y = ms.CDist(x, w)",
        "x[n,4] z[n,4] -> y; y = Einsum(x, z) equation=\"bi,bi->b\"",
        "x[n,5,4] -> y; w: float[4,3]; y = Einsum(x, w) equation=\"bsi,io->bso\"",
        "x[n,4,4] -> y; y = Det(x)",
    ]);
    not_independent(&[
        (
            "x[n,4] -> y; t = Transpose(x); y = MatMul(x, t)",
            "dependent: MatMul 'y' pairs rows with each other",
        ),
        ("x[n,4] -> y; t = Transpose(x); y = MatMul(t, x)", "dependent: MatMul 'y' sums over the rows"),
        ("x[n,4] z[n,4] -> y; y = Gemm(x, z) transB=1", "dependent: Gemm 'y' pairs rows with each other"),
        ("x[n,4] -> y; w: float[3,5]; y = Gemm(w, x) transA=1", "sums over the rows"),
        ("x[n] -> y; w: float[3,5]; y = MatMul(x, w)", "sums over the rows"),
        (
            "x[n,4] -> y; w: float[4,3]; c: float[3,3]; y = Gemm(x, w, c)",
            "unknown: Gemm 'y' combines rows with",
        ),
        ("x[n,5,4] -> y; w: float[3,4,3]; y = MatMul(x, w)", "unknown: MatMul 'y' combines rows with"),
        ("x[n,4] z[n,4] -> y; y = Einsum(x, z) equation=\"bi,ci->bc\"", "pairs rows with each other"),
        (
            "x[n,4] z[n,4] -> y; y = Einsum(x, z) equation=\"bi,bj->ij\"",
            "dependent: Einsum 'y' sums over the rows",
        ),
        (
            "x[n,4] -> y; w: float[1,4]; y = Einsum(x, w) equation=\"bi,bi->b\"",
            "unknown: Einsum 'y' pairs rows of unlike",
        ),
        ("x[n,4] z[n,4] -> y; y = ms.CDist(x, z)", "pairs rows with each other"),
    ]);
}

#[test]
fn reshapes_keep_rows_where_as_many_elements_stand_before_them() {
    independent(&[
        "x[n,3,4] -> y; s: int64 -1,12; y = Reshape(x, s)",
        "x[n,3,4] -> y; s: int64 0,-1; y = Reshape(x, s)",
        "x[n,t,8] -> y; s: int64 0,-1,2,4; t = Reshape(x, s); y = Transpose(t) perm=0,2,1,3",
        // Into blocks of rows and back.
        "x[n,3,4] -> y; s: int64 -1,4; r: int64 -1,3,4; t = Reshape(x, s); u = Relu(t); y = Reshape(u, r)",
        "x[n,3,4] -> y; y = Flatten(x)",
        "x[n,1,4] -> y; a: int64 1; y = Squeeze(x, a)",
        "x[n,4] -> y; a: int64 0; t = Unsqueeze(x, a); y = Squeeze(t, a)",
        "x[n,4] -> y; t = Transpose(x); y = Transpose(t)",
        // As exporters of PyTorch write view(x.size(0), -1).
        "x[n,3,4] -> y; i: int64 scalar 0; a: int64 0; m: int64 -1; s = Shape(x); b = Gather(s, i) axis=0; \
         c = Unsqueeze(b, a); d = Concat(c, m) axis=0; y = Reshape(x, d)",
        // And expand(x.size(0), -1): a token for each row.
        "x[n,4] -> y; i: int64 0; w: float[1,4]; o: int64 1; m: int64 -1; p: int64 4; s = Shape(x); b = Gather(s, i); \
         c = Concat(b, m) axis=0; e = Equal(c, m); q = Concat(o, p) axis=0; f = Where(e, q, c); g = Expand(w, f); \
         y = Concat(g, x) axis=1",
        "x[n,4] -> y; i: int64 0; s = Shape(x); z = ConstantOfShape(s); y = Add(z, x)",
        "x[n,4] -> y; s: int64 1,3; y = Tile(x, s)",
    ]);
    not_independent(&[
        (
            "x[n,3,4] -> y; s: int64 3,-1; y = Reshape(x, s)",
            "unknown: Reshape 'y' reshapes rows into what can't",
        ),
        ("x[n,3,4] -> y; s: int64 -1; y = Reshape(x, s)", "unknown: output 'y' has no row for each row"),
        ("x[n,3,4] -> y; s: int64 -1,4; y = Reshape(x, s)", "has no row for each row"),
        ("x[n,4] -> y; s: int64 4,-1; t = Reshape(x, s); y = Transpose(t)", "reshapes rows"),
        ("x[n,4] -> y; t = Transpose(x); s: int64 -1,4; y = Reshape(t, s)", "reshapes rows"),
        ("x[n,4] -> y; s: int64 8,4; y = Reshape(x, s)", "reshapes rows"),
        (
            "x[n,1,4] -> y; y = Squeeze(x)",
            "unknown: Squeeze 'y' drops the dimension of the rows where there is one",
        ),
        ("x[n,4] -> y; y = Flatten(x) axis=0", "has no row for each row"),
        ("x[n,4] -> y; s: int64 2,1; y = Tile(x, s)", "repeats the rows"),
        ("x[n,4] -> y; s: int64 3,4; y = Expand(x, s)", "has a shape with other rows than its input"),
        ("x[n,4] -> y; y = Transpose(x)", "has no row for each row"),
    ]);
    // With allowzero, 0 is a size of its own.
    assert!(outcome("x[n,4] -> y; s: int64 0,4; y = Reshape(x, s) allowzero=1").contains("reshapes rows"));
    assert_eq!(outcome_at(13, "x[n,4] -> y; s: int64 0,4; y = Reshape(x, s)"), "independent");
}

#[test]
fn the_number_of_rows_may_be_a_size_and_nothing_else() {
    let read = "i: int64 scalar 0; s = Shape(x); b = Gather(s, i) axis=0;";
    for (rest, words) in [
        ("f = Cast(b) to=1; y = Div(x, f)", "dependent: Cast 'f' computes with the number of rows"),
        (
            "z: int64 scalar 0; o: int64 scalar 1; r = Range(z, b, o); y = Cast(r) to=1",
            "dependent: Range 'r' numbers the rows",
        ),
        ("y = Mul(x, b)", "dependent: Mul 'y' computes with the number of rows"),
        (
            "o: int64 scalar 4; c = Less(b, o); y = If(c) then_branch={-> t: t = Neg(x)} else_branch={-> u: u = Relu(x)}",
            "dependent: Less 'c' computes with the number of rows",
        ),
        (
            "a: int64 0; c = Unsqueeze(b, a); y = Slice(x, a, c, o); o: int64 1",
            "computes with the number of rows",
        ),
        ("e = EyeLike(x); y = Add(x, e)", "dependent: EyeLike 'e' numbers the rows"),
    ] {
        let text = format!("x[n,4] -> y; {read} {rest}");
        let found = outcome(&text);
        assert!(found.contains(words), "{text}\n{found}");
    }
    // A comparison that is always false decides.
    let never = "m: int64 scalar -1; c = Equal(b, m); y = If(c) then_branch={-> t: t = ReduceMax(x)} else_branch={-> u: u = Neg(x)}";
    assert_eq!(outcome(&format!("x[n,4] -> y; {read} {never}")), "independent");
}

#[test]
fn places_are_within_rows_or_of_them() {
    independent(&[
        "i[n,t] -> y; w: float[9,4]; y = Gather(w, i)",
        "x[n,4] -> y; i: int64 0,2; y = Gather(x, i) axis=1",
        "x[n,5,4] -> y; i: int64 scalar 0; y = Gather(x, i) axis=1",
        "x[n,4] i[n,2] -> y; y = GatherElements(x, i) axis=1",
        "x[n,5,4] i[n,1] -> y; y = GatherND(x, i) batch_dims=1",
        "i[n,2] -> y; w: float[9,9,4]; y = GatherND(w, i)",
        "x[n,4] i[n,2] u[n,2] -> y; y = ScatterElements(x, i, u) axis=1",
        "x[n,4] -> y; s: int64 0,1; e: int64 9223372036854775807,3; y = Slice(x, s, e)",
        "x[n,4] -> y; s: int64 1; e: int64 3; a: int64 -1; y = Slice(x, s, e, a)",
        "x[n,4] -> y; a, b = Split(x) axis=1; y = Concat(b, a) axis=1",
        "x[n,4] -> y; c: bool 1,0,1,1; y = Compress(x, c) axis=1",
        "i[n] -> y; d: int64 scalar 3; v: float 0,1; y = OneHot(i, d, v)",
        "x[n,5,5] -> y; y = Trilu(x)",
        "x[n,4] -> y; p: int64 0,1,0,2; y = Pad(x, p)",
        "x[n,5,4] l[n] -> y; y = ReverseSequence(x, l) batch_axis=0 time_axis=1",
    ]);
    not_independent(&[
        ("x[n,4] -> y; i: int64 0; y = Gather(x, i)", "dependent: Gather 'y' takes rows by their number"),
        (
            "x[n,4] -> y; s: int64 0; e: int64 1; t = Slice(x, s, e); y = Sub(x, t)",
            "dependent: Slice 't' takes rows by their number",
        ),
        (
            "x[n,4] -> y; s: int64 -1; e: int64 -9999; a: int64 0; d: int64 -1; y = Slice(x, s, e, a, d)",
            "Slice 'y'",
        ),
        // ONNX Runtime leaves one index, where the standard leaves none: as many elements as there are rows.
        (
            "x[n,4] -> y; s: int64 0; e: int64 2147483647; a: int64 1; d: int64 -1; t = Slice(x, s, e, a, d); \
             c = Size(t); f = Cast(c) to=1; y = Mul(x, f)",
            "dependent: Cast 'f' computes with the number of rows",
        ),
        (
            "x[n,4] i[n] -> y; y = Gather(x, i)",
            "unknown: Gather 'y' takes from rows by what can't be followed",
        ),
        ("x[n,4] i[n,4] -> y; y = GatherElements(x, i)", "takes rows by their number"),
        ("x[n,4] -> y; w: float[9,4]; y = Concat(w, x) axis=0", "unknown: Concat 'y' joins rows with others"),
        (
            "x[n,4] -> y; w: float[9,1]; y = Concat(w, x) axis=1",
            "joins rows with a tensor that has others of its own",
        ),
        ("x[n,4] -> y; y, z = Split(x)", "splits the rows"),
        (
            "x[n,4] c[n] -> y; b = Cast(c) to=9; y = Compress(x, b) axis=0",
            "dependent: Compress 'y' drops rows",
        ),
        (
            "x[n,4] -> y; z = NonZero(x); y = Transpose(z)",
            "dependent: NonZero 'z' lists what it finds in all rows",
        ),
        ("x[n] -> y; y = Unique(x)", "dependent: Unique 'y' lists what it finds in all rows"),
        ("b[n,9,4] s[n,2,9] -> y; y = NonMaxSuppression(b, s)", "dependent: NonMaxSuppression 'y' lists"),
        ("x[n,5] -> y; y = Trilu(x)", "dependent: Trilu 'y' numbers the rows"),
        ("x[n,4] -> y; p: int64 1,0,0,0; y = Pad(x, p)", "adds to the rows"),
        ("x[n,5,4] l[n] -> y; y = ReverseSequence(x, l) batch_axis=1 time_axis=0", "runs along the rows"),
        ("x[n,4] -> y; i: int64 0; u: float[1,4]; y = ScatterElements(x, i, u)", "writes to rows"),
        // More conditions than elements are read past the end.
        ("x[n,1] -> y; c: bool 0,1; y = Compress(x, c) axis=1", "unknown: Compress 'y'"),
    ]);
}

#[test]
fn images_have_rows_along_the_first_axis() {
    independent(&[
        "x[n,3,8,8] -> y; w: float[5,3,3,3]; b: float[5]; y = Conv(x, w, b) pads=1,1,1,1",
        "x[n,3,8,8] -> y; w: float[3,5,3,3]; y = ConvTranspose(x, w)",
        "x[n,3,8,8] -> y; y = MaxPool(x) kernel_shape=2,2",
        "x[n,3,8,8] -> y; t = GlobalAveragePool(x); y = Flatten(t)",
        "x[n,3,h,w] -> y; s: float 1,1,2,2; y = Resize(x, , s)",
        "x[n,3,8,8] -> y; s: int64 2,2; a: int64 2,3; h = Shape(x) end=2; k: int64 4,4; d = Concat(h, k) axis=0; y = Resize(x, , , d)",
        "x[n,8,2,2] -> y; y = DepthToSpace(x) blocksize=2",
        "x[n,3,8,8] g[n,4,4,2] -> y; y = GridSample(x, g)",
        // The output size of a convolution is known if its input's is.
        "x[n,3,8,8] -> y; w: float[5,3,3,3]; s: int64 -1,45; c = Conv(x, w) strides=2,2; y = Reshape(c, s)",
    ]);
    not_independent(&[
        ("x[n,3,8,8] -> y; s: float 2,1,2,2; y = Resize(x, , s)", "unknown: Resize 'y' scales the rows"),
        ("x[n,3,8,8] -> y; s: int64 3,3,8,8; y = Resize(x, , , s)", "scales the rows"),
        ("x[n,3,8,8] z[n,3,3,3] -> y; y = Conv(x, z)", "has parameters that depend on rows"),
        ("x[n,8,8] -> y; a: int64 0; w: float[5,n,3,3]; t = Unsqueeze(x, a); y = Conv(t, w)", "unknown"),
        (
            "x[n,3,8,8] -> y, i; y, i = MaxPool(x) kernel_shape=2,2",
            "unknown: MaxPool 'y' counts places over all rows",
        ),
        ("x[n,3,8,8] r[m,4] b[m] -> y; y = RoiAlign(x, r, b)", "unknown: RoiAlign 'y' isn't known"),
    ]);
}

#[test]
fn recurrent_layers_have_the_batch_on_the_second_axis_by_default() {
    let weights = "w: float[1,8,4]; r: float[1,8,2];";
    let turned = format!(
        "x[n,t,4] -> y; {weights} u = Transpose(x) perm=1,0,2; s, h = LSTM(u, w, r) hidden_size=2; \
                          a: int64 0; y = Squeeze(h, a)"
    );
    assert_eq!(outcome(&turned), "independent");
    assert_eq!(
        outcome(&format!("x[n,t,4] -> y; {weights} y, h = LSTM(x, w, r) hidden_size=2 layout=1")),
        "independent"
    );
    let along = outcome(&format!("x[n,t,4] -> y; {weights} y, h = LSTM(x, w, r) hidden_size=2"));
    assert_eq!(along, "dependent: LSTM 'y' runs along the rows");
    let state = "i: int64 scalar 0; s = Shape(x); b = Gather(s, i) axis=0; o: int64 1; k: int64 2; a: int64 0; \
                 c = Unsqueeze(b, a); d = Concat(o, c, k) axis=0; z = ConstantOfShape(d);";
    let begun = format!(
        "x[n,t,4] -> y; {weights} {state} u = Transpose(x) perm=1,0,2; \
                         q, h = LSTM(u, w, r, , , z, z) hidden_size=2; y = Squeeze(h, a)"
    );
    assert_eq!(outcome(&begun), "independent");
    let fixed = format!(
        "x[n,t,4] -> y; {weights} z: float[1,3,2]; u = Transpose(x) perm=1,0,2; \
                         q, h = LSTM(u, w, r, , , z, z) hidden_size=2; a: int64 0; y = Squeeze(h, a)"
    );
    assert!(outcome(&fixed).contains("combines rows with a tensor that has others of its own"));
}

#[test]
fn scales_in_the_file_are_parameters_and_those_of_a_run_are_of_all_rows() {
    independent(&[
        "x[n,4] -> y; s: float[]; q = QuantizeLinear(x, s); y = DequantizeLinear(q, s)",
        "x[n,4] -> y; s: float[4]; q = QuantizeLinear(x, s) axis=1; y = DequantizeLinear(q, s) axis=1",
        "x[n,4] w[n,4] -> y; s: float[]; b: float[4,3]; y = QLinearMatMul(x, s, s, b, s, s, s, s)",
        "x[n,4] -> y; b: float[4,3]; y = MatMulInteger(x, b)",
    ]);
    not_independent(&[
        (
            "x[n,4] -> y; q, s, z = DynamicQuantizeLinear(x); y = DequantizeLinear(q, s, z)",
            "dependent: DynamicQuantizeLinear 'q' takes its scale from all rows",
        ),
        ("x[n,4] -> y; s: float[3]; y = QuantizeLinear(x, s) axis=0", "has scales that can't be followed"),
        (
            "x[n,4] -> y; b: float[4,3]; z: float[3]; y = MatMulInteger(x, b, z)",
            "has scales that can't be followed",
        ),
        (
            "x[n,4] -> y; w: float[4,3]; s: float[]; y = ms.DynamicQuantizeMatMul(x, w, s)",
            "takes its scale from all rows",
        ),
    ]);
}

#[test]
fn samples_are_rows_of_a_matrix() {
    independent(&[
        "x[n,4] -> l, p; l, p = ml.TreeEnsembleClassifier(x) classlabels_int64s=0,1,2",
        "x[n,4] -> y; y = ml.TreeEnsembleRegressor(x) n_targets=2",
        "x[n,4] -> y; t = ml.Scaler(x) offset=f1,2,3,4 scale=f1,1,1,1; y = ml.SVMRegressor(t)",
        "x[n,1] -> y; t = ml.OneHotEncoder(x) cats_strings=\"a\"|\"b\"; s: int64 -1,2; y = Reshape(t, s)",
        "x[n,4] z[n,2] -> y; y = ml.FeatureVectorizer(x, z) inputdimensions=4,2",
        "x[n,4] -> y; i: int64 0,2; y = ml.ArrayFeatureExtractor(x, i)",
        "x[n] -> y; t = ml.LabelEncoder(x) keys_strings=\"a\"|\"b\"; y = ml.Binarizer(t)",
        // Labels by the index of the highest score, as converters of scikit-learn write it.
        "x[n,3] -> y; c: int64 7,8,9; m: int64 -1; a = ArgMax(x) axis=1; b = ml.ArrayFeatureExtractor(c, a); y = Reshape(b, m)",
        // A tree has as many scores as labels.
        "x[n,4] -> y; l, p = ml.TreeEnsembleClassifier(x) classlabels_int64s=0,1,2; s: int64 1,-1,3; t = Reshape(p, s); \
         u = Concat(t, t) axis=0; a: int64 0; y = ReduceSum(u, a) keepdims=0",
    ]);
    not_independent(&[
        (
            "x[n] -> y; y = ml.Scaler(x) offset=f1,2 scale=f1,2",
            "dependent: Scaler 'y' takes all rows for one sample",
        ),
        ("x[n] -> y, p; y, p = ml.LinearClassifier(x)", "takes all rows for one sample"),
        ("x[n] -> y; i: int64 0; y = ml.ArrayFeatureExtractor(x, i)", "takes rows by their number"),
        ("x[n] -> y; y = TfIdfVectorizer(x)", "takes all rows for one sample"),
    ]);
}

#[test]
fn graphs_inside_nodes_are_followed() {
    independent(&[
        "x[n,4] -> y; c: bool scalar 1; y = If(c) then_branch={-> t: t = Neg(x)} else_branch={-> u: u = ReduceMax(x)}",
        "x[n,4] f[1] -> y; y = Loop(k, , x) body={i, c, s -> d, t: d = Identity(c); t = Mul(s, x)}; k: int64 scalar 3",
        "x[n,t,4] -> y; z: float[1]; f, y = Scan(z, x) body={s, e -> t, m: t = Identity(s); m = Relu(e)} num_scan_inputs=1 \
         scan_input_axes=1, scan_output_axes=1,",
        // Along the rows, without a state: distances, as converters of scikit-learn write it.
        "x[n,4] -> y; w: float[9,4]; f, y = Scan(w, x) num_scan_inputs=1 body={s, e -> t, m: t = Identity(s); \
         d = Sub(s, e); m = ReduceSumSquare(d) axes=1, keepdims=0}",
    ]);
    not_independent(&[
        (
            "x[n,4] -> y; o: float[]; m = ReduceMax(x) keepdims=0; c = Greater(m, o); d: float[]; \
             y = If(c) then_branch={-> t: t = Div(x, d)} else_branch={-> u: u = Identity(x)}",
            "dependent: ReduceMax 'm' reduces over the rows",
        ),
        (
            "x[n,4] -> y; c: bool scalar 0; y = If(c) then_branch={-> t: t = Neg(x)} else_branch={-> u: m = ReduceMax(x); u = Sub(x, m)}",
            "reduces over the rows",
        ),
        (
            "x[n,4] -> y; z: float[4]; f, y = Scan(z, x) body={s, e -> t, m: t = Add(s, e); m = Identity(t)} num_scan_inputs=1",
            "unknown: Scan 'f' runs along the rows",
        ),
        (
            "x[n,4] -> y; w: float[9,4]; f, y = Scan(w, x) num_scan_inputs=1 scan_input_directions=1, \
             body={s, e -> t, m: t = Identity(s); m = Relu(e)}",
            "unknown: Scan 'f' runs along the rows from their end",
        ),
        (
            "x[n,4] -> y; z: float[1]; f, y = Scan(z, x) body={s, e -> t, m: t = Identity(s); q = Sub(x, e); \
          m = ReduceMax(q) axes=0, keepdims=0} num_scan_inputs=1",
            "looks at all rows for each",
        ),
        (
            "x[n,4] -> y; s = Size(x); y = Loop(s, , x) body={i, c, s -> d, t: d = Identity(c); t = Neg(s)}",
            "unknown: Loop 'y' runs as often as there are rows",
        ),
        (
            "x[n,4] -> y; k: int64 scalar 9; y = Loop(k, , x) body={i, c, s -> d, t: m = ReduceMax(s) keepdims=0; d = Cast(m) to=9; t = Neg(s)}",
            "reduces over the rows",
        ),
    ]);
}

#[test]
fn functions_of_the_model_are_followed_with_the_attributes_of_each_call() {
    let text = "x[n,4] -> y; y = own.Scale(x) along=ALONG";
    let function = "Scale(a) -> b: b = Softmax(a) axis=@along";
    let with =
        |along: &str| outcome_of(&with_function(&model(17, &text.replace("ALONG", along)), 17, function));
    assert_eq!(with("1"), "independent");
    assert_eq!(with("0"), "dependent: Softmax 'b' normalises over the rows");
    // It has versions of its own.
    let old =
        with_function(&model(17, "x[n,4,5] -> y; y = own.Scale(x)"), 11, "Scale(a) -> b: b = Softmax(a)");
    assert_eq!(outcome_of(&old), "independent");
    let endless =
        with_function(&model(17, "x[n] -> y; y = own.Scale(x)"), 17, "Scale(a) -> b: b = own.Scale(a)");
    assert!(outcome_of(&endless).contains("calls itself"));
}

#[test]
fn transformers_of_the_runtimes_own_operators_are_followed() {
    let weights = "w: float[8,24]; b: float[24];";
    assert_eq!(
        outcome(&format!("x[n,t,8] m[n,t] -> y; {weights} y = ms.Attention(x, w, b, m) num_heads=2")),
        "independent"
    );
    let foreign =
        outcome(&format!("x[n,t,8] -> y; {weights} m: float[3,5]; y = ms.Attention(x, w, b, m) num_heads=2"));
    assert!(foreign.contains("combines rows with a tensor that has others of its own"), "{foreign}");
    independent(&[
        "q[n,s,8] k[n,t,8] v[n,t,8] -> y; y = ms.MultiHeadAttention(q, k, v) num_heads=2",
        "i[n,t] -> y; w: float[9,8]; g: float[8]; y, m = ms.EmbedLayerNormalization(i, , w, w, , g, g)",
    ]);
    let own = "q[n,2,s,8] k[n,2,t,8] v[n,2,t,8] -> y; y = Attention(q, k, v)";
    assert_eq!(outcome_at(23, own), "independent");
}

#[test]
fn a_node_that_only_the_joint_run_may_fail_at_is_no_proof() {
    let found = outcome("x[n,4] -> y; w: float[3,4]; t = Add(x, w); y = Relu(x)");
    assert!(found.starts_with("unknown: Add 't' combines rows"), "{found}");
}

#[test]
fn inputs_without_rows_and_files_that_are_none_are_not_known() {
    assert!(outcome("x[] -> y; y = Relu(x)").contains("input 'x' has no rows"));
    assert!(outcome("x -> y; y = Relu(x)").contains("the dimensions of input 'x' aren't known"));
    assert!(outcome_of(b"\xff").contains("can't be read"));
}
