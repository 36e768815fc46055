"""One server from its start to its end: load what is wanted, say when it is ready, keep it so, drain.

Reads a :class:`DesiredState`, owns the data plane and the reconciler, hands on progress. Knows nothing of terminals and
signals; restarts of workers are the data plane's.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import TYPE_CHECKING

from inferd.control.dataplane import DataPlane
from inferd.control.events import EventsDropped
from inferd.control.loading.loader import Loader
from inferd.control.reconcile.reconciler import Progress, Reconciler
from inferd.errors import InferdError

if TYPE_CHECKING:
    from collections.abc import Callable

    from inferd.control.dataplane import Loaded
    from inferd.control.desired import DesiredState
    from inferd.control.resources import Machine

__all__ = ["ControlPlane", "Progress"]

_EVENTS_TIMEOUT_S = 3600.0
"""Between two looks at a data plane in which nothing happens. Events and its end come at once."""


class ControlPlane:
    """Owns a data plane and what runs in it.

    Args:
        desired: what should run.
        machine: where.
        on_progress: called as models are loaded, from several threads but never from two at once.
        listening: whether clients can connect; without, models are loaded and no request is served.

    Raises:
        InferdError: the data plane can't start.
    """

    def __init__(
        self,
        desired: DesiredState,
        machine: Machine,
        on_progress: Callable[[Progress], object] = lambda _: None,
        *,
        listening: bool = True,
    ) -> None:
        self.desired = desired
        start = DataPlane if listening else DataPlane.without_listeners
        self.data_plane = start(desired.gateway, desired.log)
        self._loader = Loader(self.data_plane, machine)
        self._reconciler = Reconciler(self._loader, on_progress)
        watcher = threading.Thread(target=_watch, args=(self.data_plane, self._reconciler), daemon=True, name="events")
        watcher.start()
        # Also where it is not closed: when it is garbage collected, or before the interpreter ends, which must not
        # end the thread inside the data plane.
        self._end = weakref.finalize(self, _end, self._reconciler, self.data_plane, watcher, self._loader)

    def load(self) -> None:
        """Load everything that is wanted, all at the same time, and declare the server ready.

        Raises:
            ModelFailed: models could not be loaded, or are not what their files declare; every one of them is named.
            InvalidInput: the steps of a pipeline don't fit each other.
        """
        self._reconciler.want(self.desired)
        self._reconciler.wait()
        self._reconciler.raise_for_failures()
        self.data_plane.set_ready(True)

    @property
    def loaded(self) -> dict[tuple[str, int], Loaded]:
        """The models that are loaded, by name and version."""
        return self._reconciler.loaded

    @property
    def pipelines(self) -> dict[str, Loaded]:
        """The pipelines that are loaded, by name."""
        return self._reconciler.pipelines

    def stop(self) -> int:
        """Not ready at once, then answer what was admitted, then end everything.

        Returns:
            Admitted requests that could not be answered within ``drain_timeout_s``.
        """
        self._reconciler.close()
        try:
            unanswered = self.data_plane.drain(self.desired.server.drain_timeout_s)
            self._loader.keep_profiles(self.desired.models)
            return unanswered
        finally:
            self.close()

    def close(self) -> None:
        """End everything at once. Does nothing the second time."""
        self._end()


def _watch(data_plane: DataPlane, reconciler: Reconciler) -> None:
    """Hand events to the reconciler until the data plane ends."""
    while (events := data_plane.events(_EVENTS_TIMEOUT_S)) is not None:
        try:
            if any(isinstance(event, EventsDropped) for event in events):
                # An error means that it ends now.
                with contextlib.suppress(InferdError):
                    reconciler.resync(data_plane.status)
            reconciler.observe(events)
            reconciler.reconcile()
        except Exception:
            # Imported here: a server that is well never needs it.
            import logging

            logging.getLogger("inferd").exception("events of the data plane could not be taken in")


def _end(reconciler: Reconciler, data_plane: DataPlane, watcher: threading.Thread, loader: Loader) -> None:
    reconciler.close()
    data_plane.close()
    # The watcher may be the one that collects the control plane.
    if watcher is not threading.current_thread():
        watcher.join()
    loader.close()
