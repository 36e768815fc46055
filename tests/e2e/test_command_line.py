"""The command line as it is typed, and what it prints."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from outside.process import Inferd
from outside.traffic import four_columns, row_of

BIN = Path(sys.executable).parent


def typed(line: str, folder: Path, status: int = 0) -> str:
    """What ``line`` prints when it is typed in ``folder`` and ends with ``status``."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", *shlex.split(line)]
    ran = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == status, f"{line}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
    return ran.stdout + ran.stderr


def answers(server: Inferd, model: str, version: str) -> None:
    answer = httpx.post(f"{server.url}/v2/models/{model}/infer", content=four_columns(3))
    assert answer.status_code == 200, answer.text
    assert (answer.json()["model_version"], answer.json()["outputs"][0]["data"]) == (version, row_of(3))


def test_a_file_is_enough(folder: Path) -> None:
    with Inferd(folder / "run", folder / "fraud.onnx") as server:
        answers(server, "fraud", "1")
        for expected in ("fraud", "x: FP32[?, 4]", "onnxruntime", "up to 32 rows", server.address, server.metrics_url):
            assert expected in server.output()
        assert "loading  fraud" in server.log()


def test_the_curl_line_that_is_printed_works_as_pasted(folder: Path) -> None:
    with Inferd(folder / "run", folder / "fraud.onnx") as server:
        line = re.search(r"curl .*", server.output())
        assert line is not None
        pasted = subprocess.run(["bash", "-c", line[0]], capture_output=True, text=True, check=True)
        assert json.loads(pasted.stdout)["outputs"][0]["data"] == [0, 0, 0, 0]


def test_a_folder_serves_the_latest_version_of_each_model(folder: Path) -> None:
    with Inferd(folder / "run", folder / "models") as server:
        answers(server, "echo", "10")
        assert httpx.get(f"{server.url}/v2/models/moody/ready").status_code == 200
        assert httpx.get(f"{server.url}/v2/models/echo/versions/2").status_code == 404


@pytest.mark.parametrize(
    ("versions", "served"), [("latest", ["10"]), ("{latest: 2}", ["2", "10"]), ("all", ["2", "10"]), ("[2]", ["2"])]
)
def test_versions_are_chosen_beside_the_model(folder: Path, versions: str, served: list[str]) -> None:
    (folder / "models" / "echo" / "model.yaml").write_text(f"versions: {versions}\n")
    with Inferd(folder / "run", folder / "models") as server:
        assert httpx.get(f"{server.url}/v2/models/echo").json()["versions"] == served


def test_a_file_of_settings_serves_what_it_names(folder: Path) -> None:
    with Inferd(folder / "run", folder / "inferd.yaml") as server:
        answers(server, "fraud-detector", "1")
        answers(server, "echo", "10")
        assert "p99 20ms" in server.output()
        assert "2 × 1 thread" in server.output()
        big = httpx.post(f"{server.url}/v2/models/echo/infer", content=b" " * (2 << 20))
        assert big.status_code == 413


def test_flags_stand_above_files(folder: Path) -> None:
    with Inferd(folder / "run", folder / "inferd.yaml", "--replicas", "1", "--slo", "50ms") as server:
        assert "p99 50ms" in server.output()
        assert "2 × 1 thread" not in server.output()


def test_checking_shows_what_would_be_served_and_serves_nothing(folder: Path) -> None:
    printed = typed("inferd check inferd.yaml", folder)
    assert "fraud-detector" in printed
    assert "echo" in printed


def test_help_names_every_setting_and_version_the_version(folder: Path) -> None:
    help_text = typed("inferd serve --help", folder)
    for flag in ("--slo", "--port", "--replicas", "--threads", "--device", "--batch-rows-max"):
        assert flag in help_text
    assert re.fullmatch(r"inferd \d+\.\d+\.\d+\n", typed("inferd --version", folder))


FAULTS = {
    "serve nothing.onnx": ["nothing.onnx", "no such file"],
    "serve": ["PATH"],
    "serve fraud.onnx --replicas zero": ["--replicas", "zero"],
    "serve fraud.onnx --replicas 0": ["--replicas"],
    "serve fraud.onnx --slo 20": ["20ms"],
    "serve fraud.onnx --slow 20ms": ["--slow", "--slo"],
    "serve fraud.onnx --device gpu": ["gpu", "cuda"],
    "serve models/moody/1/model.py fraud.onnx fraud.onnx": ["fraud"],
    "serve empty": ["empty"],
    "sevre fraud.onnx": ["sevre"],
}


@pytest.mark.parametrize("line", FAULTS)
def test_what_is_typed_wrong_is_answered_with_what_would_be_right(folder: Path, line: str) -> None:
    (folder / "empty").mkdir()
    printed = typed(f"inferd {line}", folder, status=2)
    assert all(word in printed for word in FAULTS[line]), printed
    assert "Traceback" not in printed


def test_every_fault_of_a_file_is_told_at_once_with_its_line_and_the_nearest_name(folder: Path) -> None:
    (folder / "wrong.yaml").write_text("server:\n  prot: 8000\nmodels:\n  - path: fraud.onnx\n    replicas: many\n")
    printed = typed("inferd serve wrong.yaml", folder, status=2)
    for expected in ("wrong.yaml:2", "prot", "port", "wrong.yaml:5", "replicas", "many"):
        assert expected in printed, printed


def test_a_broken_model_ends_the_start_with_its_name_and_status_1(folder: Path) -> None:
    (folder / "broken.onnx").write_bytes(b"not a model")
    printed = typed("inferd serve broken.onnx fraud.onnx --port 0 --metrics-port 0", folder, status=1)
    assert "broken" in printed
    assert "Traceback" not in printed


def test_a_port_in_use_is_named_with_a_way_out(folder: Path) -> None:
    with Inferd(folder / "run", folder / "fraud.onnx") as server:
        port = server.address.rpartition(":")[2]
        printed = typed(f"inferd serve fraud.onnx --port {port} --metrics-port 0", folder, status=1)
        assert port in printed
        assert "--port" in printed


def test_a_model_whose_batches_are_not_right_runs_unbatched_and_the_table_says_why(folder: Path) -> None:
    (folder / "mean.py").write_text(
        "from inferd import TensorSpec\n\n\n"
        "class Mean:\n"
        "    inputs = [TensorSpec('x', 'FP32', (-1, 4))]\n"
        "    outputs = [TensorSpec('y', 'FP32', (-1, 4))]\n\n"
        "    def load(self):\n        pass\n\n"
        "    def predict(self, batch):\n"
        "        return {'y': batch['x'] - batch['x'].mean(axis=0)}\n"
    )
    with Inferd(folder / "run", folder / "mean.py") as server:
        assert re.search(r"mean .*off: .*changes", server.output())


def test_explain_says_what_was_learned_and_what_was_refused(folder: Path) -> None:
    with Inferd(folder / "run", folder / "fraud.onnx", "--slo", "20ms") as server:
        for _ in range(20):
            answers(server, "fraud", "1")
        hasty = {**json.loads(four_columns(3)), "parameters": {"timeout": 1}}
        late = httpx.post(f"{server.url}/v2/models/fraud/infer", json=hasty)
        assert late.status_code == 504
        text = " ".join(typed(f"inferd explain fraud --url {server.metrics_url}", folder).split())
        for expected in (
            "fraud 1 is ready; replicas: 1 ready.",
            "Objective 99 % of the requests within 20ms. Within it one replica sustains",
            "Batching On, up to 128 rows. It is proven: no operator mixes rows. The last",
            "Requests 21 came; 0 wait now",
            "1 (4.8%) were refused because their timeout was shorter than the model takes (timeout_too_short).",
            "ROWS MEAN MS P99 MS",
        ):
            assert expected in text, text
        told = json.loads(typed(f"inferd explain --json --url {server.metrics_url}", folder))
        explained = told["models"][0]["explain"]
        assert explained["curve"][0]["mean_s"] > 0
        assert [quantile for quantile, _ in explained["spread"]] == sorted(q for q, _ in explained["spread"])
        assert "it serves fraud" in typed(f"inferd explain other --url {server.metrics_url}", folder, status=1)
    assert "--url" in typed(f"inferd explain --url {server.metrics_url}", folder, status=1)
