"""Files of scikit-learn estimators: what of them may be loaded, and the estimator in them.

Reads skops files, and pickles that the operator vouched for; hands on a fitted estimator or the reason why there is
none. Does not know what the estimator takes or gives.

skops makes an object of a type only where the type is trusted, and trusts no more than it must. The names below are
those of scikit-learn (and of what it keeps in its objects) that skops leaves to its users. A trusted name can be made
from any arguments, called with any text (keys of a dictionary are) and given any attributes by whoever writes the file,
so each was read for what it does then: they keep numbers or compute with them; none imports, evaluates, opens or
fetches. A forged tree or index can point outside of its arrays: that ends a worker, which is why models have workers.

Not among them, because loading does run what the file says: distributions of scipy.stats, which ``exec`` a text of
their own state. A search over those is served from its ``best_estimator_``.
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
"""Endings of files that run code when they are loaded."""

_DISTANCES = (
    "BrayCurtis Canberra Chebyshev Dice Euclidean Hamming Haversine Jaccard Kulsinski Mahalanobis Manhattan Matching"
    " Minkowski RogersTanimoto RussellRao SEuclidean SokalMichener SokalSneath"
)
_NAMES = {
    # What estimators are given or fitted with.
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
    # Estimators that must be enabled before skops knows them.
    "sklearn.impute._iterative": "IterativeImputer _ImputerTriplet",
    "sklearn.model_selection._search_successive_halving": "HalvingGridSearchCV HalvingRandomSearchCV",
    # How features were selected, models compared and rows split: kept, and not used again.
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
    # Boosters in the place of an estimator: their state is the text or the bytes of the library's own format.
    "lightgbm.basic": "Booster",
    "lightgbm.sklearn": "LGBMClassifier LGBMRanker LGBMRegressor",
    "xgboost.core": "Booster",
    "xgboost.sklearn": "XGBClassifier XGBRFClassifier XGBRFRegressor XGBRanker XGBRegressor",
}
_TRUSTED = frozenset(f"{module}.{name}" for module, names in _NAMES.items() for name in names.split())

_ANSWERS = ("predict", "transform", "kneighbors", "score_samples", "mahalanobis")


def untrusted(file: Path) -> list[str]:
    """Types in a skops file of which it is not known that loading them runs nothing; in order."""
    import skops.io

    return sorted(set(skops.io.get_untrusted_types(file=file)) - _TRUSTED)


def read(file: Path, trusted_sha256: str | None) -> Any:
    """The fitted estimator in ``file``.

    Raises:
        Forbidden: the file would run code that nobody vouched for.
        ModelFailed: what is in it can't answer: it is no estimator, is not fitted, or has no method for new rows.
    """
    estimator = _unpickled(file, trusted_sha256) if file.suffix in PICKLES else _from_skops(file, trusted_sha256)
    kind = type(estimator).__name__
    if not any(hasattr(type(estimator), method) for method in ("fit", *_ANSWERS)):
        raise ModelFailed(
            f"'{file.name}' holds {kind}, which is no estimator\nhelp: save the fitted estimator or pipeline itself"
        )
    _check_fitted(file, estimator)
    if not any(hasattr(estimator, method) for method in _ANSWERS):
        raise ModelFailed(
            f"'{file.name}' holds {kind}, which describes the rows that it was fitted with: it has neither predict()"
            " nor transform()\nhelp: train a classifier or regressor on what it found, and serve that"
        )
    if hasattr(estimator, "novelty") and not hasattr(estimator, "predict"):
        raise ModelFailed(
            f"'{file.name}' holds {kind} with novelty=False, which only tells outliers among the rows that it was"
            " fitted with\nhelp: fit it with novelty=True"
        )
    return estimator


def _unpickled(file: Path, trusted_sha256: str | None) -> Any:
    import joblib

    # joblib reads plain pickles, too.
    return joblib.load(io.BytesIO(trusted_bytes(file, trusted_sha256)))


def _from_skops(file: Path, trusted_sha256: str | None) -> Any:
    import skops.io

    names = untrusted(file)
    if names:
        refuse_untrusted(
            file,
            trusted_sha256,
            f"holds types of which it is not known that they are safe ({', '.join(names)})",
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
            f"'{file.name}' holds {type(estimator).__name__}, which is not fitted\nhelp: call fit() before it is saved"
        ) from fault
    except TypeError:
        # Not made by scikit-learn's rules: its own methods say so when they are called.
        return
