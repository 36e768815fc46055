"""Decide which scikit-learn estimators treat rows independently.

Reads a fitted estimator with everything in it, hands on a reason, or None if a part is not listed: the probe decides
then. Worker side only. Knows nothing of the estimator's data. The list was made by reading the prediction methods, and
is tested by running every estimator of the library on rows alone and batched. Not listed are, for instance:

- ``NMF`` and ``MiniBatchNMF``, which stop when all rows together have converged, and ``IterativeImputer``, which skips
  a column without missing values in the batch;
- neighbours, whose order among equal distances depends on the batch size;
- ``DummyClassifier``, which draws one random series for all rows;
- anything that calls user code: ``FunctionTransformer``, tokenizers, kernels, metrics.
"""

from __future__ import annotations

from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection._search import BaseSearchCV

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["independent"]

_TREES = """
AdaBoostClassifier AdaBoostRegressor BaggingClassifier BaggingRegressor DecisionTreeClassifier DecisionTreeRegressor
ExtraTreeClassifier ExtraTreeRegressor ExtraTreesClassifier ExtraTreesRegressor GradientBoostingClassifier
GradientBoostingRegressor HistGradientBoostingClassifier HistGradientBoostingRegressor IsolationForest
RandomForestClassifier RandomForestRegressor RandomTreesEmbedding _BinMapper
"""
_LINEAR = """
ARDRegression BayesianRidge ElasticNet ElasticNetCV GammaRegressor HuberRegressor Lars LarsCV Lasso LassoCV LassoLars
LassoLarsCV LassoLarsIC LinearDiscriminantAnalysis LinearRegression LinearSVC LinearSVR LogisticRegression
LogisticRegressionCV MultiTaskElasticNet MultiTaskElasticNetCV MultiTaskLasso MultiTaskLassoCV OrthogonalMatchingPursuit
OrthogonalMatchingPursuitCV PassiveAggressiveClassifier PassiveAggressiveRegressor Perceptron PLSRegression
PoissonRegressor QuadraticDiscriminantAnalysis QuantileRegressor Ridge RidgeCV RidgeClassifier RidgeClassifierCV
SGDClassifier SGDOneClassSVM SGDRegressor TheilSenRegressor TweedieRegressor
"""
_OTHERS = """
BayesianGaussianMixture BernoulliNB CategoricalNB ComplementNB EllipticEnvelope GaussianMixture GaussianNB KernelRidge
KMeans MLPClassifier MLPRegressor MiniBatchKMeans MultinomialNB NearestCentroid NuSVC NuSVR OneClassSVM SVC SVR
"""
_TRANSFORMERS = """
AdditiveChi2Sampler Binarizer CountVectorizer FactorAnalysis FastICA GaussianRandomProjection GenericUnivariateSelect
HashingVectorizer IncrementalPCA KBinsDiscretizer LabelBinarizer LabelEncoder MaxAbsScaler MinMaxScaler Normalizer
Nystroem OneHotEncoder OrdinalEncoder PCA PolynomialCountSketch PolynomialFeatures PowerTransformer QuantileTransformer
RBFSampler RFE RFECV RobustScaler SelectFdr SelectFpr SelectFromModel SelectFwe SelectKBest SelectPercentile
SequentialFeatureSelector SimpleImputer SkewedChi2Sampler SparseRandomProjection SplineTransformer StandardScaler
TargetEncoder TfidfTransformer TfidfVectorizer TruncatedSVD VarianceThreshold
"""
# Estimators that delegate to others and combine their outputs per row.
_COMPOSED = """
CalibratedClassifierCV ClassifierChain ColumnTransformer FeatureUnion FixedThresholdClassifier MultiOutputClassifier
MultiOutputRegressor OneVsOneClassifier OneVsRestClassifier OutputCodeClassifier Pipeline RANSACRegressor RegressorChain
SelfTrainingClassifier StackingClassifier StackingRegressor TransformedTargetRegressor TunedThresholdClassifierCV
VotingClassifier VotingRegressor
"""
_LISTED = frozenset(" ".join((_TREES, _LINEAR, _OTHERS, _TRANSFORMERS, _COMPOSED)).split())
_BOOSTERS = {
    "lightgbm.sklearn": ("LGBMClassifier", "LGBMRegressor", "LGBMRanker"),
    "xgboost.sklearn": ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor", "XGBRanker"),
    "catboost.core": ("CatBoostClassifier", "CatBoostRegressor", "CatBoostRanker"),
}
# Packages whose objects hold data and no user code.
_DATA = ("sklearn", "numpy", "scipy", "builtins", "_loss")
_PLAIN = (str, bytes, int, float, np.generic, np.random.RandomState)
_CODE = (FunctionType, BuiltinFunctionType, MethodType, MethodDescriptorType, type(np.cumsum))


def independent(estimator: Any) -> str | None:
    """Return why rows of ``estimator`` are independent; ``None``: unknown."""
    while isinstance(estimator, BaseSearchCV):
        # A search only calls its best estimator.
        estimator = estimator.best_estimator_
    if not all(map(_is_known, _parts(estimator, set()))):
        return None
    if _is_booster(estimator) or type(estimator).__name__ in _TREES.split():
        return f"the trees of {type(estimator).__name__} answer row by row"
    return f"{type(estimator).__name__} and all its parts answer row by row"


def _parts(value: Any, seen: set[int]) -> Iterator[Any]:
    """Yield every estimator in ``value``, and every object that may be code or of an unknown class."""
    if id(value) in seen or value is None or isinstance(value, _PLAIN):
        return
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            for one in value.flat:
                yield from _parts(one, seen)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _parts(one, seen)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for one in value:
            yield from _parts(one, seen)
    else:
        yield value
        if isinstance(value, BaseEstimator) and not _is_booster(value):
            yield from _parts(vars(value), seen)


def _is_known(part: Any) -> bool:
    module = getattr(part if isinstance(part, (type, *_CODE)) else type(part), "__module__", None) or ""
    package = module.split(".")[0]
    if isinstance(part, BaseEstimator) or _is_booster(part):
        if type(part).__name__ == "FunctionTransformer" and package == "sklearn":
            return all(map(_is_elementwise, (part.func, part.inverse_func)))
        return (package == "sklearn" and type(part).__name__ in _LISTED) or _is_booster(part)
    if isinstance(part, np.ufunc):
        return _is_elementwise(part)
    if isinstance(part, _CODE):
        return package == "sklearn"
    return package in _DATA


def _is_elementwise(function: Any) -> bool:
    return function is None or (isinstance(function, np.ufunc) and function.signature is None)


def _is_booster(value: Any) -> bool:
    return type(value).__name__ in _BOOSTERS.get(type(value).__module__, ())
