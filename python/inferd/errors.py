"""The exceptions that inferd raises. One root, built-ins where they fit.

Read by everything; imports nothing of inferd. Knows nothing of HTTP statuses and gRPC codes: the table of error
kinds in the data plane turns a kind into those, and into one of these classes.

::

    InferdError
    ├── SpecError (ValueError)              the settings or the model folder are wrong; every fault at once
    ├── InvalidInput (ValueError)           the request is wrong in itself
    ├── NotFound (LookupError)              no such model or version
    ├── Unauthenticated (PermissionError)   the caller did not say who it is
    ├── Forbidden (PermissionError)         the caller may not do this
    ├── Unavailable                         the same call may succeed a little later
    │   ├── RateLimited                     asked more often than allowed
    │   ├── Overloaded                      more work than can be done in time
    │   ├── NotReady                        the model is known, no replica is ready
    │   ├── Draining                        the server is about to stop
    │   └── WorkerLost                      the worker died and the request could not be run again
    ├── DeadlineMissed (TimeoutError)       the caller's timeout passed
    ├── Cancelled                           the caller went away
    ├── ModelFailed (RuntimeError)          the model raised an error, or could not be loaded
    ├── Unimplemented (NotImplementedError) the protocol has it, this server does not
    └── InternalError (RuntimeError)        a fault of inferd
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
    """The root of every exception of inferd.

    Args:
        message: what failed, for whoever asked; ends with the remedy where there is one.
        detail: what only the operator may read, a traceback for instance.
        retry_after_s: seconds after which trying again is worth it; ``None`` where that is not known.
    """

    def __init__(self, message: str, *, detail: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class SpecError(InferdError, ValueError):
    """The settings or the model folder are wrong.

    Args:
        faults: every fault that was found, each ``place: what is wrong``.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class InvalidInput(InferdError, ValueError):
    """The request is wrong in itself. A model's ``predict`` may raise it; the client then reads the message.

    Args:
        message: what is wrong.
        detail: as for every error.
        retry_after_s: as for every error.
        row: the row that is wrong, from 0; None: the whole request.
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
        """The same, of the row ``row`` unless it names one."""
        return self if self.row is not None else InvalidInput(self.message, detail=self.detail, row=row)


class NotFound(InferdError, LookupError):
    """No such model or version."""


class Unauthenticated(InferdError, PermissionError):
    """The caller did not say who it is."""


class Forbidden(InferdError, PermissionError):
    """The caller may not do this."""


class Unavailable(InferdError):
    """The same call may succeed a little later."""


class RateLimited(Unavailable):
    """The caller asks more often than it may."""


class Overloaded(Unavailable):
    """There is more work than can be done in time."""


class NotReady(Unavailable):
    """The model is known but no replica is ready."""


class Draining(Unavailable):
    """The server is about to stop."""


class WorkerLost(Unavailable):
    """The worker that ran the request died and it may not or could not be run again."""


class DeadlineMissed(InferdError, TimeoutError):
    """The caller's timeout passed, or is shorter than the model ever takes."""


class Cancelled(InferdError):
    """The caller went away before the answer."""


class ModelFailed(InferdError, RuntimeError):
    """The model raised an error, or could not be loaded."""


class Unimplemented(InferdError, NotImplementedError):
    """The protocol has it, this server does not."""


class InternalError(InferdError, RuntimeError):
    """A fault of inferd."""
