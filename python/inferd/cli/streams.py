"""Standard streams that hold nobody up.

Takes what is printed, hands whole lines to the data plane's writer, which drops and counts what a stream doesn't take.
Knows nothing of what is printed.
"""

from __future__ import annotations

import atexit
import io
import os
import sys
import threading
from typing import TYPE_CHECKING

from inferd.control.dataplane import flush_streams, write_stream

if TYPE_CHECKING:
    from typing import Never

__all__ = ["END_MAX_S", "Stream", "flush", "never_wait"]

END_MAX_S = 0.5
"""How long the end of the process waits for each stream to take the last lines."""
# A line that doesn't end is handed over in pieces of this.
_PIECE = 1 << 16


class Stream(io.TextIOBase):
    """Writes to ``descriptor``, 1 or 2, without ever waiting for it or failing with it."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Take ``text``; whole lines are handed on at once."""
        with self._lock:
            lines, end, rest = (self._rest + text).rpartition("\n")
            self._rest = rest
            if len(rest) > _PIECE:
                lines, end, self._rest = lines + end + rest, "", ""
            if lines or end:
                # A text may hold half of a surrogate pair, which no encoding has.
                write_stream(self._descriptor, (lines + end).encode("utf-8", "replace").decode())
        return len(text)

    def flush(self) -> None:
        """Hand on a line that has not ended yet."""
        with self._lock:
            if self._rest:
                write_stream(self._descriptor, self._rest.encode("utf-8", "replace").decode())
                self._rest = ""

    def writable(self) -> bool:
        """It is for writing."""
        return True

    def isatty(self) -> bool:
        """Whether a person sees it."""
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        """The descriptor, for direct writes."""
        return self._descriptor

    def detach(self) -> Never:
        """There is nothing below it."""
        raise io.UnsupportedOperation("detach")


def flush() -> None:
    """Wait for what was printed, for :data:`END_MAX_S` at most."""
    flush_streams(END_MAX_S)


def never_wait() -> None:
    """Make ``sys.stdout`` and ``sys.stderr`` streams of this kind: whatever prints, nothing hangs or fails by it."""
    sys.stdout, sys.stderr = Stream(1), Stream(2)
    atexit.register(flush)
