"""PyTorch: TorchScript archives, and programs of ``torch.export`` where the installed torch has it.

``compose`` reads the model's settings in the control plane; :class:`TorchRuntime` runs the program in a worker.
Both forms hold a program of torch's own, no Python; a pickled ``nn.Module`` (``torch.save(model)``) is Python, and a
file of weights alone (``torch.save(model.state_dict())``) is no program: both are refused.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.errors import Forbidden, InvalidInput, ModelFailed
from inferd.runtimes.base import Batch, Launch, Runtime, in_python, require

if TYPE_CHECKING:
    from inferd.spec.settings import ModelSpec
    from inferd.types import TensorSpec

__all__ = ["TorchRuntime", "claims", "compose", "load"]

PLATFORM = "pytorch_libtorch"
_ENDINGS = (".pt", ".pth", ".torchscript", ".pt2")


def claims(path: Path) -> bool:
    """``.pt``, ``.pth``, ``.torchscript`` and ``.pt2`` files."""
    return path.is_file() and path.suffix in _ENDINGS


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """How a worker for the program in ``file`` is started."""
    if file.suffix != ".pt2" and not _is_script(file):
        raise Forbidden(
            f"'{file.name}' is a pickle of torch.save(), no program: loading it runs whatever code its author put "
            "there\nhelp: save the model with torch.jit.script(model).save('model.pt'), with torch.export.save(), or "
            "as ONNX; weights alone belong into safetensors, beside a model class in Python"
        )
    require("torch", "torch", spec)
    return in_python("torch", PLATFORM, file, spec, threads)


def _is_script(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            # Only TorchScript has code and constants.
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def load(settings: dict[str, Any]) -> Runtime:
    """The program, in this process."""
    return TorchRuntime(settings)


class TorchRuntime:
    """A program.

    TorchScript knows the names of its inputs, neither their types nor their shapes: ``inputs:`` in ``model.yaml`` says
    them. An exported program knows all. Outputs that are not declared are found by one run.
    """

    example: Batch | None = None

    def __init__(self, settings: dict[str, Any]) -> None:
        import torch

        torch.set_num_threads(settings["threads"])
        file = Path(settings["file"])
        self.facts = {"runtime": f"torch {torch.__version__}"}
        from inferd.runtimes.signatures import declared, outputs_seen, with_declared

        outputs = declared(settings, "outputs")
        self._names = [spec.name for spec in outputs or ()]
        inputs = declared(settings, "inputs")
        if file.suffix == ".pt2":
            self._program, own = _exported(torch, file)
            inputs = inputs or own
        else:
            self._program = torch.jit.load(str(file), map_location="cpu").eval()
            if inputs is None:
                raise ModelFailed(_unknown(self._program))
        self._inputs = [spec.name for spec in inputs]
        seen = outputs or outputs_seen(self.predict({spec.name: _plausible(spec) for spec in inputs}))
        self.signature = with_declared(settings, inputs, seen)

    def predict(self, batch: Batch) -> Batch:
        """The program's answers."""
        import torch

        # A copy: torch may write into its inputs, which lie in shared memory that a retry reads again.
        tensors = [torch.from_numpy(batch[name].copy()) for name in self._inputs]
        with torch.inference_mode():
            try:
                found = self._program(*tensors)
            except (RuntimeError, IndexError) as fault:
                if "shape" in str(fault) or "size" in str(fault) or "index" in str(fault):
                    raise InvalidInput("the model can't use inputs of these shapes or values") from fault
                raise
        return {name: tensor.numpy() for name, tensor in _named(found, self._names).items()}

    def close(self) -> None:
        """Nothing is held but memory."""


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


def _unknown(program: Any) -> str:
    arguments = [argument.name for argument in program.forward.schema.arguments[1:]]
    example = ", ".join(f"{{name: {name}, datatype: FP32, shape: [-1, 30]}}" for name in arguments)
    return (
        f"TorchScript does not say what types and shapes its inputs have ({', '.join(arguments)})\n"
        f"help: write them in model.yaml, for instance inputs: [{example}]"
    )


def _named(found: Any, names: list[str]) -> dict[str, Any]:
    if isinstance(found, dict):
        return found
    tensors = list(found) if isinstance(found, tuple | list) else [found]
    if not names:
        names = ["output"] if len(tensors) == 1 else [f"output_{position}" for position in range(len(tensors))]
    return dict(zip(names, tensors, strict=True))


def _plausible(spec: TensorSpec) -> Any:
    import numpy as np

    from inferd.types import DATATYPES

    return np.zeros([1 if dim < 0 else dim for dim in spec.shape], DATATYPES[spec.datatype])
