"""Requests and answers of HTTP, and which exception a status is.

Knows nothing of what is asked, and sends nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from inferd import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HttpAnswer", "HttpRequest", "error_for", "error_of", "model_path"]


class HttpRequest(NamedTuple):
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None


class HttpAnswer(NamedTuple):
    """Its answer, read to the end."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def model_path(model: str, version: str) -> str:
    """Where a model, or one version of it, is."""
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
    """The exception for a status."""
    kind = _CLASSES.get(status, errors.InternalError if status >= 500 else errors.InvalidInput)
    return kind(message or f"HTTP {status}", retry_after_s=retry_after_s)


def error_of(answer: HttpAnswer) -> errors.InferdError:
    """The exception for an answer that is an error."""
    try:
        message = json.loads(answer.body)["error"]
    except (ValueError, KeyError, TypeError):
        message = answer.body[:200].decode(errors="replace")
    after = answer.headers.get("Retry-After", "")
    return error_for(answer.status, str(message), float(after) if after.isdigit() else None)
