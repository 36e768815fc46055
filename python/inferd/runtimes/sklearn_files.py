"""Load files of scikit-learn estimators safely.

Reads skops files and trusted pickles, hands on a fitted estimator or the reason for a refusal. Knows nothing of the
estimator's inputs and outputs.

skops instantiates only trusted types, and trusts few by default. The names below are types of scikit-learn (and of its
objects' contents) that skops leaves to its users. The author of a file can instantiate a trusted type with any
arguments, call it with any text (as dictionary keys are) and set any attributes, so each was reviewed for that: they
store numbers or compute with them; none imports, evaluates, opens or downloads. A forged tree or index can read out of
bounds, which crashes a worker; worker processes contain that.

Deliberately missing, since loading them does execute code: distributions of scipy.stats, which ``exec`` a text of their
state. A search over those is served from its ``best_estimator_``.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from inferd.errors import ModelFailed
from inferd.runtimes.trust import refuse_untrusted, trusted_bytes

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PICKLES", "read", "untrusted"]

PICKLES = (".pkl", ".pickle", ".joblib")
"""Extensions of files that execute code on load."""

_DISTANCES = (
    "BrayCurtis Canberra Chebyshev Dice Euclidean Hamming Haversine Jaccard Kulsinski Mahalanobis Manhattan Matching"
    " Minkowski RogersTanimoto RussellRao SEuclidean SokalMichener SokalSneath"
)
_NAMES = {
    # Arguments and attributes of estimators.
    "builtins": "frozenset object",
    "collections": "OrderedDict",
    "functools": "partial",
    "numpy": "bool bool_ dtype floating inexact integer number signedinteger unsignedinteger"
    " clip max mean median min nan_to_num",
    "scipy._lib.array_api_compat.numpy._aliases": "asarray",
    "scipy.interpolate._bsplines": "BSpline",
    "scipy.sparse._csr": "csr_array csr_matrix",
    "sklearn.compose._column_transformer": "_RemainderColsList make_column_selector",
    "sklearn.utils._bunch": "Bunch",
    "sklearn.utils._metadata_requests": "MetadataRequest MethodMetadataRequest",
    "sklearn.utils.validation": "check_array",
    # Parts of fitted models.
    "sklearn._loss.loss": "AbsoluteError ExponentialLoss HalfBinomialLoss HalfGammaLoss HalfMultinomialLoss"
    " HalfPoissonLoss HalfSquaredError HalfTweedieLoss HalfTweedieLossIdentity HuberLoss PinballLoss",
    "sklearn.calibration": "_CalibratedClassifier _SigmoidCalibration _TemperatureScaling",
    "sklearn.cluster._bisect_k_means": "_BisectingTree",
    "sklearn.cluster._kmeans": "_kmeans_single_elkan _kmeans_single_lloyd",
    "sklearn.ensemble._hist_gradient_boosting.predictor": "TreePredictor",
    "sklearn.gaussian_process._gpc": "_BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels": "CompoundKernel ConstantKernel DotProduct ExpSineSquared Exponentiation Matern"
    " PairwiseKernel Product RBF RationalQuadratic Sum WhiteKernel",
    "sklearn.metrics._dist_metrics": " ".join(
        f"{name}Distance{bits}" for name in _DISTANCES.split() for bits in ("32", "64")
    ),
    "sklearn.multiclass": "_ConstantPredictor",
    "sklearn.neighbors._ball_tree": "BallTree BallTree32 BallTree64",
    "sklearn.neighbors._kd_tree": "KDTree KDTree32 KDTree64",
    "sklearn.neural_network._stochastic_optimizers": "AdamOptimizer SGDOptimizer",
    "sklearn.tree._tree": "Tree",
    # Experimental estimators that skops knows only once enabled.
    "sklearn.impute._iterative": "IterativeImputer _ImputerTriplet",
    "sklearn.model_selection._search_successive_halving": "HalvingGridSearchCV HalvingRandomSearchCV",
    # Feature selection, scoring and splitting: stored, but not used for inference.
    "sklearn.feature_selection._mutual_info": "mutual_info_classif mutual_info_regression",
    "sklearn.feature_selection._univariate_selection": "chi2 f_classif f_oneway f_regression r_regression",
    "sklearn.metrics._scorer": "_CurveScorer _MultimetricScorer _PassthroughScorer _Scorer negative_likelihood_ratio"
    " positive_likelihood_ratio",
    "sklearn.metrics._classification": "accuracy_score balanced_accuracy_score brier_score_loss cohen_kappa_score"
    " d2_brier_score d2_log_loss_score f1_score fbeta_score hamming_loss hinge_loss jaccard_score log_loss"
    " matthews_corrcoef precision_score recall_score zero_one_loss",
    "sklearn.metrics._ranking": "average_precision_score dcg_score label_ranking_average_precision_score ndcg_score"
    " roc_auc_score top_k_accuracy_score",
    "sklearn.metrics._regression": "d2_absolute_error_score d2_pinball_score d2_tweedie_score explained_variance_score"
    " max_error mean_absolute_error mean_absolute_percentage_error mean_gamma_deviance mean_pinball_loss"
    " mean_poisson_deviance mean_squared_error mean_squared_log_error mean_tweedie_deviance median_absolute_error"
    " r2_score root_mean_squared_error root_mean_squared_log_error",
    "sklearn.metrics.cluster._supervised": "adjusted_mutual_info_score adjusted_rand_score completeness_score"
    " fowlkes_mallows_score homogeneity_score mutual_info_score normalized_mutual_info_score rand_score"
    " v_measure_score",
    "sklearn.model_selection._split": "GroupKFold GroupShuffleSplit KFold LeaveOneGroupOut LeaveOneOut LeavePGroupsOut"
    " LeavePOut PredefinedSplit RepeatedKFold RepeatedStratifiedKFold ShuffleSplit StratifiedGroupKFold StratifiedKFold"
    " StratifiedShuffleSplit TimeSeriesSplit _CVIterableWrapper",
    # Boosters as estimators: their state is text or bytes in the library's own format.
    "lightgbm.basic": "Booster",
    "lightgbm.sklearn": "LGBMClassifier LGBMRanker LGBMRegressor",
    "xgboost.core": "Booster",
    "xgboost.sklearn": "XGBClassifier XGBRFClassifier XGBRFRegressor XGBRanker XGBRegressor",
}
_TRUSTED = frozenset(f"{module}.{name}" for module, names in _NAMES.items() for name in names.split())

_METHODS = ("predict", "transform", "kneighbors", "score_samples", "mahalanobis")


def untrusted(file: Path) -> list[str]:
    """Return the types in a skops file that are not known to be safe, sorted."""
    import skops.io

    return sorted(set(skops.io.get_untrusted_types(file=file)) - _TRUSTED)


def read(file: Path, trusted_sha256: str | None) -> Any:
    """Load the fitted estimator in ``file``.

    Raises:
        Forbidden: the file would execute untrusted code.
        ModelFailed: it is no estimator, not fitted, or has no method for new rows.
    """
    estimator = _load_pickle(file, trusted_sha256) if file.suffix in PICKLES else _load_skops(file, trusted_sha256)
    kind = type(estimator).__name__
    if not any(hasattr(type(estimator), method) for method in ("fit", *_METHODS)):
        raise ModelFailed(
            f"'{file.name}' contains {kind}, which is not an estimator\nhelp: save the fitted estimator or pipeline"
        )
    _check_fitted(file, estimator)
    if not any(hasattr(estimator, method) for method in _METHODS):
        raise ModelFailed(
            f"'{file.name}' contains {kind}, which has neither predict() nor transform() for new rows\n"
            "help: train a classifier or regressor on its result, and serve that"
        )
    if hasattr(estimator, "novelty") and not hasattr(estimator, "predict"):
        raise ModelFailed(
            f"'{file.name}' contains {kind} with novelty=False, which can't score new rows\nhelp: fit it with"
            " novelty=True"
        )
    return estimator


def _load_pickle(file: Path, trusted_sha256: str | None) -> Any:
    import joblib

    # joblib reads plain pickles too.
    return joblib.load(io.BytesIO(trusted_bytes(file, trusted_sha256)))


def _load_skops(file: Path, trusted_sha256: str | None) -> Any:
    import skops.io

    names = untrusted(file)
    if names:
        refuse_untrusted(
            file,
            trusted_sha256,
            f"contains types that are not known to be safe ({', '.join(names)})",
            "save the model without them (of a search, its best_estimator_), or as ONNX",
        )
    return skops.io.load(file, trusted=skops.io.get_untrusted_types(file=file))


def _check_fitted(file: Path, estimator: Any) -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError as fault:
        raise ModelFailed(
            f"'{file.name}' contains {type(estimator).__name__}, which is not fitted\nhelp: call fit() before saving it"
        ) from fault
    except TypeError:
        # Not a scikit-learn estimator: its own methods report it when called.
        return
