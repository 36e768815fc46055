"""Servers inside a Python process, which is as it was when they have gone.

Run as ``python -m outside.embedded CHECK FOLDER`` with a folder of model files. In an interpreter that has
run other tests, threads come and go that are not the server's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import pytest

import inferd
from outside.leftovers import Leftovers
from outside.traffic import four_columns, row_of


def a_server_lives_as_long_as_its_block(files: Path) -> None:
    with Leftovers():
        with inferd.Server(files / "identity.onnx", threads=1) as server:
            address = server.address
            answer = httpx.post(f"{server.url}/v2/models/identity/infer", content=four_columns(5))
            assert answer.json()["outputs"][0]["data"] == row_of(5)
            assert [model.name for model in server.models] == ["identity"]
            assert server.models[0].signature.inputs[0].shape == (-1, 4)
            assert "inferd_requests_total" in httpx.get(server.metrics_url).text
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://{address}/v2")


def servers_come_and_go_and_run_side_by_side(files: Path) -> None:
    with Leftovers():
        for _ in range(3):
            with inferd.Server(files / "identity.onnx") as one, inferd.Server(files / "moody.py") as other:
                assert one.address != other.address
                for server, model in ((one, "identity"), (other, "moody")):
                    assert httpx.get(f"{server.url}/v2/models/{model}/ready").status_code == 200


def a_model_that_can_not_be_loaded_raises_and_leaves_nothing(files: Path) -> None:
    broken = files / "broken.onnx"
    broken.write_bytes(b"not a model")
    with Leftovers():
        with pytest.raises(inferd.InferdError, match="broken"):
            inferd.Server(broken).start()
        with pytest.raises(inferd.SpecError, match=r"nothing\.onnx"):
            inferd.Server(files / "nothing.onnx").start()


CHECKS = [
    a_server_lives_as_long_as_its_block,
    servers_come_and_go_and_run_side_by_side,
    a_model_that_can_not_be_loaded_raises_and_leaves_nothing,
]

if __name__ == "__main__":
    name, folder = sys.argv[1:]
    # What the first server of a process makes once, for good: the handlers of signals, imported modules.
    with inferd.Server(Path(folder) / "identity.onnx"):
        pass
    next(check for check in CHECKS if check.__name__ == name)(Path(folder))
