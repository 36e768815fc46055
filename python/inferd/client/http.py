"""HTTP requests and responses, and the exception for each status.

Sends nothing; knows nothing of what is called.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from inferd import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HttpRequest", "HttpResponse", "error_for", "error_of", "model_path"]


class HttpRequest(NamedTuple):
    """An HTTP request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None


class HttpResponse(NamedTuple):
    """A complete HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def model_path(model: str, version: str) -> str:
    """Return the URL path of a model, or of one version."""
    name = quote(model, safe="")
    return f"v2/models/{name}/versions/{quote(version, safe='')}" if version else f"v2/models/{name}"


_CLASSES: dict[int, type[errors.InferdError]] = {
    400: errors.InvalidInput,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.InvalidInput,
    408: errors.DeadlineMissed,
    413: errors.InvalidInput,
    415: errors.InvalidInput,
    422: errors.InvalidInput,
    429: errors.RateLimited,
    499: errors.Cancelled,
    500: errors.ModelFailed,
    501: errors.Unimplemented,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.DeadlineMissed,
}


def error_for(status: int, message: str, retry_after_s: float | None = None) -> errors.InferdError:
    """Return the exception for an HTTP status."""
    kind = _CLASSES.get(status, errors.InternalError if status >= 500 else errors.InvalidInput)
    return kind(message or f"HTTP {status}", retry_after_s=retry_after_s)


def error_of(response: HttpResponse) -> errors.InferdError:
    """Return the exception for an error response."""
    try:
        message = json.loads(response.body)["error"]
    except (ValueError, KeyError, TypeError):
        message = response.body[:200].decode(errors="replace")
    after = response.headers.get("Retry-After", "")
    return error_for(response.status, str(message), float(after) if after.isdigit() else None)
