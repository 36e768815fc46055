"""Pipelines as they are declared, and what is said of those that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inferd import Pipeline, Step
from inferd.spec.convert import Source
from inferd.spec.files import load_server_file
from inferd.spec.pipelines import read_pipelines

YAML = """
models: [a.onnx]
pipelines:
  - name: both
    slo: {latency: 50ms, percentile: 95}
    steps:
      - name: first
        model: {new: 1, old: 9}
        inputs: {x: image}
      - {name: second, model: b, inputs: {x: [first.y, image]}, when: {tensor: first.kind, equals: 3}, optional: true}
    outputs: {result: [second.z, first.y]}
"""


def read(text: str, tmp_path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    file = tmp_path / "inferd.yaml"
    file.write_text(text)
    faults: list[str] = []
    pipelines = load_server_file(file, faults).pipelines
    return pipelines, [fault.removeprefix(f"{tmp_path}/") for fault in faults]


def test_a_file_and_python_mean_the_same(tmp_path: Path) -> None:
    from_file, faults = read(YAML, tmp_path)
    pipeline = Pipeline(
        name="both",
        slo={"latency": "50ms", "percentile": 95},  # type: ignore[arg-type]
        steps=[
            Step(name="first", model={"new": 1, "old": 9}, inputs={"x": "image"}),
            Step(
                name="second",
                model="b",
                inputs={"x": ["first.y", "image"]},
                when={"tensor": "first.kind", "equals": 3},
                optional=True,
            ),
        ],
        outputs={"result": ["second.z", "first.y"]},
    )
    assert faults == []
    assert from_file == read_pipelines([pipeline], Source("Server()"), faults)
    assert faults == []
    assert from_file == [
        {
            "name": "both",
            "slo": {"latency_s": 0.05, "percentile": 95.0},
            "priority_default": 1,
            "steps": [
                {
                    "name": "first",
                    "models": [("new", 1), ("old", 9)],
                    "inputs": [("x", ["image"])],
                    "when": None,
                    "optional": False,
                },
                {
                    "name": "second",
                    "models": [("b", 1)],
                    "inputs": [("x", ["first.y", "image"])],
                    "when": {"tensor": "first.kind", "test": {"in": [3]}},
                    "optional": True,
                },
            ],
            "outputs": [("result", ["second.z", "first.y"])],
        }
    ]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("slo:", "slow:", "inferd.yaml:5: unknown setting 'slow'; did you mean 'slo'?"),
        ("name: both", "name: a/b", "inferd.yaml:4: name: 'a/b' does not match"),
        ("  - name: both\n    slo", "  - slo", "inferd.yaml:4: 'name' is missing: The pipeline's name in URLs."),
        ("{x: image}", "{}", "inferd.yaml:9: inputs: write NAME: tensor for each"),
        ("first.y, image", "frist.y, image", "'frist.y' refers to unknown step 'frist'; did you mean 'first'?"),
        ("name: second", "name: first", "inferd.yaml:10: duplicate step name 'first'; rename one"),
        ("equals: 3", "is: 3", "inferd.yaml:10: when: unknown test 'is'"),
        ("equals: 3", "above: high", "when: above: 'high' is not a number"),
        ("old: 9", "old: -1", "inferd.yaml:8: model: weight of 'old': -1"),
        ("[second.z, first.y]", "image", "inferd.yaml:11: output 'result': 'image' is an input"),
        ("optional: true", "optinal: true", "inferd.yaml:10: unknown setting 'optinal'; did you mean 'optional'?"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(old: str, new: str, fault: str, tmp_path: Path) -> None:
    assert old in YAML
    _, faults = read(YAML.replace(old, new, 1), tmp_path)
    assert any(fault in found for found in faults), faults


def test_every_fault_is_found_at_once(tmp_path: Path) -> None:
    _, faults = read(YAML.replace("equals", "is").replace("old: 9", "old: x").replace("slo", "slow"), tmp_path)
    assert len(faults) == 3, faults


def test_no_steps_and_no_list_say_what_to_write(tmp_path: Path) -> None:
    assert read("models: [a.onnx]\npipelines: {name: x}\n", tmp_path)[1] == [
        "inferd.yaml:2: pipelines: expected a list; write - name: NAME and its steps under it"
    ]
    _, faults = read("models: [a.onnx]\npipelines:\n  - {name: x, outputs: {y: a.b}}\n", tmp_path)
    assert "inferd.yaml:3: a pipeline needs steps; write steps: and under it - name: NAME" in faults
