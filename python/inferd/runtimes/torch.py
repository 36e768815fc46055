"""PyTorch: TorchScript archives, and ``torch.export`` programs if the installed torch supports them.

``compose`` reads the model's settings in the control plane; :class:`TorchRuntime` runs the program in a worker. Both
formats contain a program of torch's own, no Python. Refused are a pickled ``nn.Module`` (``torch.save(model)``), which
is Python, and weights alone (``torch.save(model.state_dict())``), which are no program. Knows nothing of batching.
"""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.errors import Forbidden, InvalidInput, ModelFailed
from inferd.runtimes.base import UNUSABLE, Batch, Launch, Runtime, Takes, python_launch, require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from inferd.spec.settings import ModelSpec
    from inferd.types import TensorSpec

__all__ = ["TAKES", "TorchRuntime", "claims", "compose", "load"]

PLATFORM = "pytorch_libtorch"
TAKES = Takes(
    title="PyTorch",
    types="TorchScript has none: `inputs:` in `model.yaml` declares BOOL, UINT8, INT8 to INT64, FP16, FP32,"
    " FP64, BF16. Exported programs have their own. torch has no text.",
    categories="None in the library.",
    missing="NaN reaches the program as it is.",
    names="The arguments of `forward()`, in any order. If none of them is declared, inputs are positional: in"
    " the order of `inputs:`, or of their numbers (`INPUT__0`, `INPUT__1`).",
    outputs="Keys of dictionaries and fields of named tuples; else `output`, or `output_0`, `output_1`, and"
    " `output_0_1` of a nested tuple. `outputs:` may rename them, in this order. Types and sizes come from"
    " runs on generated inputs. `None` is omitted, and named in `left_out`.",
)
_ENDINGS = (".pt", ".pth", ".torchscript", ".pt2")


def claims(path: Path) -> bool:
    """Claims ``.pt``, ``.pth``, ``.torchscript`` and ``.pt2`` files."""
    return path.is_file() and path.suffix in _ENDINGS


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """Return how to start a worker for the program in ``file``."""
    if file.suffix != ".pt2" and not _is_script(file):
        raise Forbidden(
            f"'{file.name}' is a pickle of torch.save(), not a program: loading it executes any code that its author"
            " put there\nhelp: save the model with torch.jit.script(model).save('model.pt'), with torch.export.save(),"
            " or as ONNX; save weights alone as safetensors, next to a model class in Python"
        )
    require("torch", "torch", spec)
    return python_launch("torch", PLATFORM, file, spec, threads)


def _is_script(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            # Only TorchScript archives have constants.
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def load(settings: dict[str, Any]) -> Runtime:
    """Load the program in this process."""
    return TorchRuntime(settings)


class TorchRuntime:
    """A program.

    TorchScript has the names of its inputs, but not their types and shapes: ``inputs:`` in ``model.yaml`` declares
    them. An exported program has all. Outputs are derived from runs of different sizes: dictionaries and named tuples
    name theirs, other tensors are ``output``, or ``output_0``, ``output_1`` …

    Raises:
        ModelFailed: the declarations do not match the program.
    """

    example: Batch | None = None

    def __init__(self, settings: dict[str, Any]) -> None:
        import torch

        from inferd.runtimes.signatures import declared, with_sizes

        torch.set_num_threads(settings["threads"])
        file = Path(settings["file"])
        self.facts = {"runtime": f"torch {torch.__version__}"}
        self._torch = torch
        self._declared = [spec.name for spec in declared(settings, "outputs") or ()]
        inputs = declared(settings, "inputs")
        self._by_name: list[str] = []
        if file.suffix == ".pt2":
            self._program, inputs = _exported(torch, file)
            self._positional = [spec.name for spec in inputs]
        else:
            self._program = torch.jit.load(str(file), map_location="cpu").eval()
            if inputs is None:
                raise ModelFailed(_undeclared_inputs(self._program))
            self._positional, self._by_name = _arguments(self._program, inputs)
        self._dtypes = {spec.name: self._dtype_of(spec) for spec in inputs}
        found = self._derive_outputs(inputs)
        self.signature = with_sizes(settings, inputs, found or declared(settings, "outputs") or ())

    def predict(self, batch: Batch) -> Batch:
        """Run the program over a batch.

        Raises:
            InvalidInput: the program rejects the inputs.
        """
        return dict(outputs_by_name(self._run(batch), self._declared))

    def close(self) -> None:
        """Nothing to release."""

    def _run(self, batch: Batch) -> Any:
        torch = self._torch
        # Copy: torch may write to its inputs in shared memory, which a retry reads again.
        tensors = {name: self._tensor(name, array.copy()) for name, array in batch.items()}
        with torch.inference_mode():
            try:
                return self._program(
                    *(tensors[name] for name in self._positional), **{name: tensors[name] for name in self._by_name}
                )
            except (RuntimeError, ValueError, IndexError, AssertionError, torch.jit.Error) as fault:
                if "allocate memory" in str(fault):
                    raise
                raise InvalidInput(UNUSABLE) from fault

    def _dtype_of(self, spec: TensorSpec) -> Any:
        """Return the torch dtype of an input."""
        names = {"BOOL": "bool", "BF16": "bfloat16", **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)}}
        dtype = getattr(self._torch, names.get(spec.datatype, spec.datatype.lower()), None)
        if dtype is None:
            raise ModelFailed(
                f"torch {self._torch.__version__} has no dtype for {spec.datatype} of input '{spec.name}'\n"
                "help: declare a type that the model supports, INT64 for most integers"
            )
        return dtype

    def _tensor(self, name: str, array: Any) -> Any:
        if self._dtypes[name] is self._torch.bfloat16:
            # numpy has no bfloat16: the array holds its bits.
            return self._torch.from_numpy(array.view("int16")).view(self._torch.bfloat16)
        return self._torch.from_numpy(array)

    def _derive_outputs(self, inputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...] | None:
        """Derive outputs from runs of different dynamic sizes and values, or from one if the program needs fixed sizes.

        ``None``: generated inputs fail, and the settings declare the outputs.
        """
        from inferd.runtimes.signatures import observed_outputs, outputs_of_runs, synthetic_inputs

        reason: BaseException
        for sizes in (((2, 3), (3, 5)), ((1, 1),)):
            try:
                runs = [self._run(synthetic_inputs(inputs, *pair)) for pair in sizes]
            except InvalidInput as fault:
                reason = fault.__cause__ or fault
                continue
            for fill in (0, 1):
                with contextlib.suppress(InvalidInput):
                    runs.append(self._run(synthetic_inputs(inputs, *sizes[0], fill)))
            left_out = [name for name, value in leaves(runs[0]) if value is None]
            if left_out:
                self.facts["left_out"] = ", ".join(f"'{name}' is None" for name in left_out)
            batches = [dict(outputs_by_name(run, self._declared)) for run in runs]
            specs = outputs_of_runs(batches) if len(sizes) == 2 else observed_outputs(batches[0])
            values = (value for _, value in leaves(runs[0]) if value is not None)
            return tuple(_of_tensor(spec, value) for spec, value in zip(specs, values, strict=True))
        if self._declared:
            return None
        raise ModelFailed(
            f"the model fails on generated inputs, from which its outputs are derived: {reason}\n"
            "help: check inputs: in model.yaml, and declare outputs: there too"
        )


def _exported(torch: Any, file: Path) -> tuple[Any, tuple[TensorSpec, ...]]:
    from inferd.runtimes.signatures import datatype_of
    from inferd.types import TensorSpec

    if not hasattr(torch, "export"):
        raise ModelFailed(f"torch {torch.__version__} has no torch.export\nhelp: install torch 2.1 or later")
    program = torch.export.load(str(file))
    names = list(program.graph_signature.user_inputs)
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    specs = []
    for name in names:
        value = values[name]
        dims = tuple(dim if isinstance(dim, int) else -1 for dim in value.shape)
        specs.append(TensorSpec(name, datatype_of(str(value.dtype).removeprefix("torch.")), dims))
    return program.module(), tuple(specs)


def _undeclared_inputs(program: Any) -> str:
    arguments = [argument.name for argument in program.forward.schema.arguments[1:]]
    example = ", ".join(f"{{name: {name}, datatype: FP32, shape: [-1, 30]}}" for name in arguments)
    return (
        f"TorchScript does not store types and shapes of its inputs ({', '.join(arguments)})\n"
        f"help: declare them in model.yaml, for instance inputs: [{example}]"
    )


def _arguments(program: Any, inputs: Sequence[TensorSpec]) -> tuple[list[str], list[str]]:
    """Return the positional inputs and the named ones.

    Raises:
        ModelFailed: only some inputs are named as arguments of the program.
    """
    known = [argument.name for argument in program.forward.schema.arguments[1:]]
    names = [spec.name for spec in inputs]
    if set(names) <= set(known):
        return [], names
    if set(names) & set(known) or len(names) > len(known):
        raise ModelFailed(
            f"inputs: declares {names}, but forward() takes {known}\n"
            "help: name all of them as forward() does, or none: they are then positional"
        )
    # Triton's names for the arguments of a program: INPUT__0, INPUT__1.
    numbers = [name.rpartition("__")[2] for name in names]
    if all(number.isdecimal() for number in numbers):
        names = sorted(names, key=lambda name: int(name.rpartition("__")[2]))
    return names, []


def leaves(found: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the tensors and numbers in a program's result, with names that locate them."""
    if isinstance(found, dict):
        members = [(str(key), value) for key, value in found.items()]
    elif isinstance(found, tuple) and hasattr(found, "_fields"):
        members = list(zip(found._fields, found, strict=True))
    elif isinstance(found, tuple | list) and not _is_flat(found):
        prefix = name or "output"
        alone = len(found) == 1 and not name
        members = [(prefix if alone else f"{prefix}_{index}", value) for index, value in enumerate(found)]
        for member, value in members:
            yield from leaves(value, member)
        return
    else:
        yield name or "output", found
        return
    for key, value in members:
        yield from leaves(value, f"{name}_{key}" if name else key)


def _is_flat(found: Any) -> bool:
    """Whether a list contains Python numbers or texts: one output of any length."""
    return isinstance(found, list) and all(isinstance(value, int | float | str) for value in found)


def outputs_by_name(found: Any, wanted: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the outputs in a program's result as arrays.

    Args:
        found: tensors, numbers and texts in dictionaries, tuples and lists.
        wanted: declared names, in order; empty: their own.

    Raises:
        ModelFailed: the number of names does not match.
    """
    members_by_name = {name: value for name, value in leaves(found) if value is not None}
    if not wanted or set(wanted) <= members_by_name.keys():
        names = list(members_by_name)
    elif len(wanted) == len(members_by_name):
        names = list(wanted)
    else:
        raise ModelFailed(
            f"outputs: declares {list(wanted)}, but the model has {list(members_by_name)}\n"
            "help: declare as many, in the same order, or none"
        )
    for name, value in zip(names, members_by_name.values(), strict=True):
        yield name, _array(value)


def _array(value: Any) -> np.ndarray:
    import numpy as np

    if hasattr(value, "detach"):
        value = value.detach()
        return _bits(value) if _is_bf16(value) else np.asarray(value.numpy())
    if isinstance(value, str):
        return np.array(value.encode(), object)
    return np.asarray(value, object if isinstance(value, list) and value and isinstance(value[0], str) else None)


def _is_bf16(value: Any) -> bool:
    return str(getattr(value, "dtype", None)) == "torch.bfloat16"


def _of_tensor(spec: TensorSpec, value: Any) -> TensorSpec:
    """Return the specification of an output whose array may hold bfloat16 bits."""
    from inferd.types import TensorSpec

    return TensorSpec(spec.name, "BF16", spec.shape) if _is_bf16(value) else spec


def _bits(value: Any) -> np.ndarray:
    import torch

    # numpy has no bfloat16.
    bits: np.ndarray = value.contiguous().view(torch.int16).numpy()
    return bits.view("uint16")
