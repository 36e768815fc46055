"""inferd: serve AI models as isolated microservices behind one gateway, and keep a latency promise.

The public names, each imported when it is first used, so that ``import inferd`` costs nothing.
Knows nothing of what they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inferd.client.asynchronous import AsyncClient
    from inferd.client.blocking import Client
    from inferd.client.retry import Retry
    from inferd.client.tensors import Result
    from inferd.control.dataplane import __version__
    from inferd.control.server import ModelInfo, Server
    from inferd.errors import (
        Cancelled,
        DeadlineMissed,
        Draining,
        Forbidden,
        InferdError,
        InternalError,
        InvalidInput,
        ModelFailed,
        NotFound,
        NotReady,
        Overloaded,
        RateLimited,
        SpecError,
        Unauthenticated,
        Unavailable,
        Unimplemented,
        WorkerLost,
    )
    from inferd.sdk.codecs import Shape
    from inferd.sdk.context import Context
    from inferd.sdk.model import Model
    from inferd.sdk.sequences import Sequence
    from inferd.spec.pipelines import Pipeline, Step
    from inferd.types import InputSchema, Signature, TensorSpec

__all__ = [
    "AsyncClient",
    "Cancelled",
    "Client",
    "Context",
    "DeadlineMissed",
    "Draining",
    "Forbidden",
    "InferdError",
    "InputSchema",
    "InternalError",
    "InvalidInput",
    "Model",
    "ModelFailed",
    "ModelInfo",
    "NotFound",
    "NotReady",
    "Overloaded",
    "Pipeline",
    "RateLimited",
    "Result",
    "Retry",
    "Sequence",
    "Server",
    "Shape",
    "Signature",
    "SpecError",
    "Step",
    "TensorSpec",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "WorkerLost",
    "__version__",
]

_HOMES = {
    "AsyncClient": "inferd.client.asynchronous",
    "Client": "inferd.client.blocking",
    "Context": "inferd.sdk.context",
    "Result": "inferd.client.tensors",
    "Retry": "inferd.client.retry",
    "Model": "inferd.sdk.model",
    "ModelInfo": "inferd.control.server",
    "Pipeline": "inferd.spec.pipelines",
    "Sequence": "inferd.sdk.sequences",
    "Server": "inferd.control.server",
    "Shape": "inferd.sdk.codecs",
    "InputSchema": "inferd.types",
    "Signature": "inferd.types",
    "Step": "inferd.spec.pipelines",
    "TensorSpec": "inferd.types",
    "__version__": "inferd.control.dataplane",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'inferd' has no attribute '{name}'")
    from importlib import import_module

    value: object = getattr(import_module(_HOMES.get(name, "inferd.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
