"""Iterate over sync and async generators of users' models alike.

Reads a generator, hands on its values one by one. Knows nothing of tensors.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

__all__ = ["is_generator", "iterate"]


def is_generator(method: Callable[..., Any]) -> bool:
    """Whether calling ``method`` returns a generator, async or not."""
    return inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method)


@contextlib.contextmanager
def iterate(generator: Any) -> Iterator[Iterator[Any]]:
    """Iterate over ``generator``. The end of the ``with`` block closes it, even before its last value."""
    if not inspect.isasyncgen(generator):
        with contextlib.closing(generator):
            yield generator
        return
    with asyncio.Runner() as loop:
        try:
            yield _iterate_async(loop, generator)
        finally:
            loop.run(generator.aclose())


def _iterate_async(loop: asyncio.Runner, generator: AsyncIterator[Any]) -> Generator[Any]:
    async def advance() -> Any:
        return await anext(generator)

    while True:
        try:
            value = loop.run(advance())
        except StopAsyncIteration:
            return
        yield value
