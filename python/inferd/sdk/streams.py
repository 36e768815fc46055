"""Generators of users' models, of either kind, as one.

Reads what calling a method gave, hands on its values one by one. Knows nothing of tensors.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

__all__ = ["each", "is_generator"]


def is_generator(method: Callable[..., Any]) -> bool:
    """Whether calling ``method`` gives a generator, async or not."""
    return inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method)


@contextlib.contextmanager
def each(generator: Any) -> Iterator[Iterator[Any]]:
    """What ``generator`` yields. It is closed at the end of the ``with``, also in the middle of its values."""
    if not inspect.isasyncgen(generator):
        with contextlib.closing(generator):
            yield generator
        return
    with asyncio.Runner() as loop:
        try:
            yield _driven(loop, generator)
        finally:
            loop.run(generator.aclose())


def _driven(loop: asyncio.Runner, generator: AsyncIterator[Any]) -> Generator[Any]:
    async def following() -> Any:
        return await anext(generator)

    while True:
        try:
            value = loop.run(following())
        except StopAsyncIteration:
            return
        yield value
