"""The exceptions that inferd raises. One root class; built-in bases where they fit.

Read by every package; imports nothing of inferd. Knows nothing of HTTP statuses and gRPC codes: the data plane's table
of error kinds maps a kind to those and to one of these classes.

::

    InferdError
    ├── SpecError (ValueError)              the settings or the model folder are invalid; reports every fault at once
    ├── InvalidInput (ValueError)           the request itself is invalid
    ├── NotFound (LookupError)              no such model or version
    ├── Unauthenticated (PermissionError)   credentials are missing or invalid
    ├── Forbidden (PermissionError)         the caller lacks permission
    ├── Unavailable                         transient; retrying the same call may succeed
    │   ├── RateLimited                     the caller exceeds its rate limit
    │   ├── Overloaded                      more load than can be served in time
    │   ├── NotReady                        the model exists, no replica is ready
    │   ├── Draining                        the server is shutting down
    │   └── WorkerLost                      the worker died and the request could not be retried
    ├── DeadlineMissed (TimeoutError)       the caller's timeout expired
    ├── Cancelled                           the caller cancelled or disconnected
    ├── ModelFailed (RuntimeError)          the model raised an error or could not be loaded
    ├── Unimplemented (NotImplementedError) part of the protocol that this server does not implement
    └── InternalError (RuntimeError)        a bug in inferd
"""

from __future__ import annotations

__all__ = [
    "Cancelled",
    "DeadlineMissed",
    "Draining",
    "Forbidden",
    "InferdError",
    "InternalError",
    "InvalidInput",
    "ModelFailed",
    "NotFound",
    "NotReady",
    "Overloaded",
    "RateLimited",
    "SpecError",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "WorkerLost",
]


class InferdError(Exception):
    """Root of every exception of inferd.

    Args:
        message: what failed, in words safe to show a client; ends with the remedy where there is one.
        detail: for operators only, e.g. a traceback.
        retry_after_s: seconds to wait before a retry; ``None`` if unknown.
    """

    def __init__(self, message: str, *, detail: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class SpecError(InferdError, ValueError):
    """The settings or the model folder are invalid.

    Args:
        faults: every fault found, each ``place: what is wrong``.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class InvalidInput(InferdError, ValueError):
    """The request itself is invalid. A model's ``predict`` may raise it; the client sees the message.

    Args:
        message: what is wrong.
        detail: see :class:`InferdError`.
        retry_after_s: see :class:`InferdError`.
        row: index of the invalid row; ``None``: the whole request.
    """

    def __init__(
        self,
        message: str,
        *,
        detail: str | None = None,
        retry_after_s: float | None = None,
        row: int | None = None,
    ) -> None:
        super().__init__(message, detail=detail, retry_after_s=retry_after_s)
        self.row = row

    def __str__(self) -> str:
        return self.message if self.row is None else f"row {self.row}: {self.message}"

    def at_row(self, row: int) -> InvalidInput:
        """Return this error with ``row`` set, unless it already names a row."""
        return self if self.row is not None else InvalidInput(self.message, detail=self.detail, row=row)


class NotFound(InferdError, LookupError):
    """No such model or version."""


class Unauthenticated(InferdError, PermissionError):
    """The caller's credentials are missing or invalid."""


class Forbidden(InferdError, PermissionError):
    """The caller lacks permission."""


class Unavailable(InferdError):
    """Transient: retrying the same call may succeed."""


class RateLimited(Unavailable):
    """The caller exceeds its rate limit."""


class Overloaded(Unavailable):
    """There is more load than can be served in time."""


class NotReady(Unavailable):
    """The model exists but no replica is ready."""


class Draining(Unavailable):
    """The server is shutting down."""


class WorkerLost(Unavailable):
    """The worker that ran the request died and the request was not, or could not be, retried."""


class DeadlineMissed(InferdError, TimeoutError):
    """The caller's timeout expired, or is shorter than the model's minimum latency."""


class Cancelled(InferdError):
    """The caller cancelled or disconnected before the response."""


class ModelFailed(InferdError, RuntimeError):
    """The model raised an error or could not be loaded."""


class Unimplemented(InferdError, NotImplementedError):
    """Part of the protocol that this server does not implement."""


class InternalError(InferdError, RuntimeError):
    """A bug in inferd."""
