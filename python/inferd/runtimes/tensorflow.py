"""TensorFlow and Keras: SavedModel folders and ``.keras`` files.

``compose`` reads the model's settings in the control plane; :class:`TensorflowRuntime` runs the model in a worker. A
SavedModel is a graph and executes no Python on load. A ``.keras`` file may contain Python in lambda layers, or name
code of other packages to import: both are refused unless ``trusted_sha256`` trusts the file, here by its content and
again by Keras itself. Knows nothing of batching.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from inferd.errors import InvalidInput, ModelFailed
from inferd.runtimes.base import UNUSABLE, Batch, Launch, Runtime, Takes, python_launch, require
from inferd.runtimes.trust import digest, refuse_untrusted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np

    from inferd.spec.settings import ModelSpec
    from inferd.types import TensorSpec

__all__ = ["TAKES", "TensorflowRuntime", "claims", "compose", "load"]

PLATFORM = "tensorflow_savedmodel"
TAKES = Takes(
    title="TensorFlow and Keras",
    types="The signature's own: BOOL, integers of 8 to 64 bits, FP16, FP32, FP64, BF16, BYTES for texts.",
    categories="None in the library; layers of Keras may look up texts and integers.",
    missing="NaN reaches the model as it is. A text can't be missing.",
    names="Those of the signature, or of Keras's input layers.",
    outputs="Every one of the signature. Keras: the names of its output layers, or the keys of a dictionary;"
    " `lstm`, `lstm_1` if a layer has several. Of several signatures in a SavedModel `serving_default` is served, and"
    " the others are named in `left_out`; without a `serving_default` the load fails and asks for a choice.",
    parameters={"signature": "the signature of a SavedModel to serve"},
)
_SAFE_WAY = "replace it with layers of Keras, or save the model as a graph with model.export(folder)"


def claims(path: Path) -> bool:
    """Claims folders with ``saved_model.pb``, and ``.keras`` files."""
    return (path / "saved_model.pb").is_file() if path.is_dir() else path.suffix == ".keras"


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """Return how to start a worker for the model in ``file``."""
    code = None if file.is_dir() else _foreign_code(file)
    if code is not None:
        refuse_untrusted(file, spec.trusted_sha256, code, _SAFE_WAY)
    if file.is_file() and "signature" in spec.parameters:
        raise ModelFailed("a Keras model has no signatures\nhelp: remove parameters: signature")
    require("tensorflow", "tensorflow", spec)
    return python_launch("tensorflow", PLATFORM, file, spec, threads)


def _foreign_code(file: Path) -> str | None:
    """Return why loading a ``.keras`` file would execute foreign code; None: it would not.

    Raises:
        ModelFailed: the file is not a Keras archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            config = json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as fault:
        raise ModelFailed(
            f"'{file.name}' is not a Keras archive: {fault}\nhelp: save it with model.save('model.keras') of Keras 3"
        ) from None
    if isinstance(config, dict):
        # Losses, metrics and optimizers are not loaded.
        config.pop("compile_config", None)
    return next(filter(None, map(_code_of, _objects(config))), None)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in a JSON value, outermost first."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield one
            left += one.values()
        elif isinstance(one, list):
            left += one


def _code_of(serialized: dict[str, Any]) -> str | None:
    kind, module = serialized.get("class_name"), serialized.get("module")
    if kind in ("Lambda", "__lambda__"):
        return "contains a lambda layer"
    known = module is None or module == "builtins" or str(module).partition(".")[0] == "keras"
    return None if kind is None or known else f"names code of '{module}'"


def load(settings: dict[str, Any]) -> Runtime:
    """Load the model in this process."""
    return TensorflowRuntime(settings)


class TensorflowRuntime:
    """A signature of a SavedModel, or a Keras model as one.

    Of several signatures ``serving_default`` is served, or the one of ``parameters: {signature: NAME}``.

    Raises:
        ModelFailed: the choice of a signature is ambiguous, or a tensor of it is unsupported.
    """

    example: Batch | None = None

    def __init__(self, settings: dict[str, Any]) -> None:
        import tensorflow as tf

        from inferd.runtimes.signatures import chosen_signature, with_sizes

        tf.config.threading.set_intra_op_parallelism_threads(settings["threads"])
        tf.config.threading.set_inter_op_parallelism_threads(1)
        path = Path(settings["file"])
        self.facts = {"runtime": f"tensorflow {tf.__version__}"}
        if path.is_dir():
            self._model = tf.saved_model.load(str(path))
            chosen, facts = chosen_signature(list(self._model.signatures), settings["parameters"])
            if chosen is None:
                raise ModelFailed("the SavedModel has no signature\nhelp: save it with model.export(folder)")
            self._function = _signature(self._model.signatures[chosen])
            self.facts |= facts
        else:
            self._model = _keras(path, settings["trusted_sha256"])
            self._function = _traced(tf, self._model)
        self._tf = tf
        self.signature = with_sizes(
            settings,
            [_described(name, spec) for name, spec in self._function.inputs.items()],
            [_described(name, spec) for name, spec in self._function.outputs.items()],
        )

    def predict(self, batch: Batch) -> Batch:
        """Run the model over a batch.

        Raises:
            InvalidInput: an operator rejects the inputs.
        """
        refusals = (self._tf.errors.InvalidArgumentError, self._tf.errors.OutOfRangeError)
        try:
            found = self._function.call({name: self._tensor(name, array) for name, array in batch.items()})
        except refusals as fault:
            raise InvalidInput(UNUSABLE) from fault
        return {name: _array(tensor) for name, tensor in found.items()}

    def close(self) -> None:
        """Nothing to release."""

    def _tensor(self, name: str, array: np.ndarray) -> Any:
        dtype = self._function.inputs[name].dtype
        # numpy has no bfloat16: the array holds its bits.
        return self._tf.bitcast(array, dtype) if dtype == self._tf.bfloat16 else self._tf.constant(array, dtype=dtype)


def _array(tensor: Any) -> np.ndarray:
    import numpy as np

    array = np.asarray(tensor.numpy())
    return array.view("uint16") if array.dtype.name == "bfloat16" else array


def _keras(file: Path, trusted_sha256: str | None) -> Any:
    import keras

    trusted = trusted_sha256 is not None and trusted_sha256 == digest(file)
    try:
        return keras.saving.load_model(file, compile=False, safe_mode=not trusted)
    except ValueError as fault:
        if "safe_mode" not in str(fault) and "unsafe" not in str(fault).lower():
            raise
        refuse_untrusted(file, trusted_sha256, "contains code", _SAFE_WAY)
        raise


class _Function(NamedTuple):
    """A function from named tensors to named tensors."""

    inputs: dict[str, Any]
    """The specification of each."""
    outputs: dict[str, Any]
    call: Callable[[dict[str, Any]], dict[str, Any]]


def _signature(function: Any) -> _Function:
    _, inputs = function.structured_input_signature
    outputs = function.structured_outputs
    return _Function(dict(sorted(inputs.items())), dict(sorted(outputs.items())), lambda tensors: function(**tensors))


def _traced(tf: Any, model: Any) -> _Function:
    """Trace a Keras model. Its tensors are positional, as argument names would be altered."""
    specs = {spec.name: tf.TensorSpec(spec.shape, spec.dtype) for spec in model.inputs}
    names = _distinct(model.output_names)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def run(tensors: list[Any]) -> dict[str, Any]:
        found = model(tensors if len(tensors) > 1 else tensors[0])
        if isinstance(found, dict):
            return found
        return dict(zip(names, found if isinstance(found, list | tuple) else [found], strict=True))

    concrete = run.get_concrete_function(list(specs.values()))
    outputs = dict(sorted(concrete.structured_outputs.items()))
    return _Function(specs, outputs, lambda tensors: concrete([tensors[name] for name in specs]))


def _distinct(names: Iterable[str]) -> list[str]:
    """Make names unique: the outputs of a layer share its name."""
    found: list[str] = []
    for name in names:
        number = 0
        other = name
        while other in found:
            number += 1
            other = f"{name}_{number}"
        found.append(other)
    return found


def _described(name: str, spec: Any) -> TensorSpec:
    from inferd.runtimes.signatures import datatype_of
    from inferd.types import TensorSpec

    kind = type(spec).__name__
    if not hasattr(spec, "shape") or not hasattr(spec, "dtype") or kind in ("RaggedTensorSpec", "SparseTensorSpec"):
        raise ModelFailed(f"'{name}' is a {kind}, not a tensor\nhelp: save the model with a signature of dense tensors")
    if spec.shape.rank is None:
        raise ModelFailed(f"'{name}' has a dynamic rank\nhelp: save the model with an input signature")
    try:
        datatype = datatype_of(spec.dtype.as_numpy_dtype)
    except (ModelFailed, TypeError):
        raise ModelFailed(f"'{name}' has dtype {spec.dtype.name}, which the protocol does not support") from None
    return TensorSpec(name, datatype, tuple(-1 if dim is None else dim for dim in spec.shape))
