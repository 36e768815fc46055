from pathlib import Path

import pytest

from inferd.spec.files import load_model_file, load_server_file
from inferd.spec.samples import Sample, SampleInput
from inferd.spec.values import CutOutput, Objective, PaddedInput, Padding, Sequences, State, Versions


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        file = tmp_path / "inferd.yaml"
        file.write_text(text)
        return file

    return write


def test_a_file_gives_typed_settings_and_only_those_that_it_sets(write):
    faults = []
    file = write(
        "server:\n  body_max_bytes: 1MiB\n  metrics_port: null\n"
        "defaults: {slo: 20ms}\n"
        "models:\n  - fraud.onnx\n  - path: iris\n    slo: {latency: 1s, percentile: 95}\n    versions: {latest: 2}\n"
    )
    read = load_server_file(file, faults)
    assert faults == []
    assert read.server == {"body_max_bytes": 1 << 20, "metrics_port": None}
    assert read.defaults == {"slo": Objective(0.02)}
    assert [entry.path for entry in read.models] == [file.parent / "fraud.onnx", file.parent / "iris"]
    assert read.models[1].given == {"slo": Objective(1.0, 95.0), "versions": Versions(latest=2)}


def test_all_faults_are_reported_together_each_with_its_line(write):
    faults = []
    file = write(
        "server:\n  prot: 9000\n  port: many\n  header_max_bytes: 64\n"
        "defaults:\n  name: x\n"
        "models:\n  - path: a\n    replicas: 0\n    replicas: 2000\n  - slo: 3\n"
        "modles: []\n"
    )
    load_server_file(file, faults)
    by_line = dict(fault.removeprefix(f"{file}:").split(": ", 1) for fault in faults)
    assert "did you mean 'port'" in by_line["2"]
    assert "expected int" in by_line["3"]
    assert "the minimum is 1024" in by_line["4"]
    assert "applies to one model only" in by_line["6"]
    assert "needs a path" in by_line["11"]
    assert "did you mean 'models'" in by_line["12"]
    assert any("duplicate key" in fault for fault in faults)
    assert any("the maximum is 256" in fault for fault in faults)
    assert len(faults) == 8


@pytest.mark.parametrize(("written", "meant"), [("on", "on"), ("off", "off"), ("auto", "auto"), ('"on"', "on")])
def test_a_bare_on_or_off_means_itself(write, written, meant):
    faults = []
    assert load_model_file(write(f"batching: {written}\n"), faults) == {"batching": meant}
    assert faults == []


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("latest", Versions()),
        ("all", Versions(latest=None)),
        ("{latest: 3}", Versions(latest=3)),
        ("[10, 2, 2]", Versions(latest=None, listed=(2, 10))),
    ],
)
def test_versions_are_chosen_in_four_ways(write, written, meant):
    faults = []
    assert load_model_file(write(f"versions: {written}\n"), faults) == {"versions": meant}
    assert faults == []


@pytest.mark.parametrize(
    "text",
    [
        "versions: []",
        "versions: [0]",
        "versions: newest",
        "versions: {latest: true}",
        "slo: 20",
        "slo: 0ms",
        "slo: {percentile: 99}",
        "slo: {latency: 20ms, percentile: 100}",
        "device: gpu",
        "batching: maybe",
        "inputs: [{name: x, datatype: FLOAT, shape: [1]}]",
        "inputs: [{name: x, shape: [1]}]",
        "env: [A]",
        "load_max_s: 0",
        "replicas: null",
        "replicas: true",
        "name: ../x",
        "- a list",
        "a: ]",
        "a: !!python/object:os.system {}",
        "1: x",
    ],
)
def test_a_wrong_value_is_one_fault_with_its_line(write, text):
    faults = []
    load_model_file(write(text + "\n"), faults)
    assert len(faults) == 1
    assert ":1: " in faults[0]


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path):
    faults = []
    load_model_file(tmp_path / "absent.yaml", faults)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xff")
    load_model_file(tmp_path / "binary.yaml", faults)
    assert [fault.split(": ", 1)[1] for fault in faults] == ["No such file or directory", "not UTF-8 text"]


def test_an_alias_that_holds_itself_ends(write):
    faults = []
    load_model_file(write("parameters: &a\n  b: *a\n"), faults)
    assert any("nested deeper" in fault for fault in faults)


def test_no_models_at_all_is_a_fault_that_says_how_to_write_one(write):
    faults = []
    load_server_file(write("server: {port: 1}\n"), faults)
    assert len(faults) == 1
    assert "- path: model.onnx" in faults[0]


def test_sequences_are_read_in_short_and_their_faults_say_what_to_write(write):
    faults = []
    file = write(
        "models:\n  - path: a\n    sequence: {idle_max: 2m, start: S, state: {h: h_out, c: {output: c_out, shape: [1, 0]}}}\n"
        "  - path: b\n    sequence: {state: {h: 3}}\n"
        "  - path: c\n    sequence: {sequences_max: 0}\n"
        "  - path: d\n    sequence: yes please\n",
    )
    read = load_server_file(file, faults)
    state = {"h": State("h_out"), "c": State("c_out", (1, 0))}
    given = Sequences(idle_max_s=120.0, start="S", state=state)
    assert read.models[0].given["sequence"] == given
    assert given.to_json() == {
        "idle_max_s": 120.0,
        "sequences_max": 10_000,
        "controls": {"S": "sequence_start"},
        "state": [
            {"input": "h", "output": "h_out", "shape": None},
            {"input": "c", "output": "c_out", "shape": [1, 0]},
        ],
    }
    assert [f":{line}: sequence: " in fault for line, fault in zip((5, 7, 9), faults, strict=True)] == [True] * 3, (
        faults
    )
    assert all("write {idle_max: 60s" in fault for fault in faults)


def test_padding_is_read_by_name_and_its_faults_say_what_to_write(write):
    faults = []
    file = write(
        "server: {tenant_header: x-tenant, tenants: {gold: 3}}\n"
        "models:\n  - path: a\n    padding: {inputs: {x: {value: -1}}, outputs: {y: {axis: 2}}}\n"
        "  - path: b\n    padding: {inputs: {x: {axis: 0}}}\n"
        "  - path: c\n    padding: {outputs: {y: {}}}\n"
    )
    read = load_server_file(file, faults)
    assert read.server == {"tenant_header": "x-tenant", "tenants": {"gold": 3}}
    assert read.models[0].given["padding"] == Padding({"x": PaddedInput(1, -1.0)}, {"y": CutOutput(2)})
    assert [":6: padding" in faults[0], ":8: padding" in faults[1]] == [True, True], faults
    assert all("write {inputs: {tokens: {axis: 1, value: 0}}" in fault for fault in faults)


def test_what_stands_beside_a_model_is_read_as_it_is_written(write):
    faults = []
    given = load_model_file(
        write(
            "optional: {top: 5, mask: [1, 1], factor: null}\n"
            "labels: {y: labels.txt, z: [cat, dog]}\n"
            "warmup:\n"
            "  - {inputs: {text: [a]}, rows: 8}\n"
            "  - {file: request.json, count: 3}\n"
            "  - {name: zeros, rows: 32}\n"
        ),
        faults,
    )
    assert faults == []
    assert given == {
        "optional": {"top": 5, "mask": [1, 1], "factor": None},
        "labels": {"y": "labels.txt", "z": ["cat", "dog"]},
        "warmup": (
            Sample("1", {"text": SampleInput("values", ["a"])}, rows=8),
            Sample("request.json", file="request.json", count=3),
            Sample("zeros", rows=32),
        ),
    }
    assert load_model_file(write("warmup: false"), faults) == {"warmup": False}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optional: [top]", "optional: ['top'] is not a mapping of names to values; write {top: 5}"),
        ("optional: {day: 2024-01-01}", "optional: 'day': datetime.date(2024, 1, 1) is not a number"),
        ("optional: {x: .nan}", "optional: 'x': nan is not a number"),
        ("labels: {y: 5}", "labels: expected"),
        ("warmup: [a]", "warmup: 'a' is not a warm-up request; write true, false, or a list"),
        ("warmup: []", "warmup: [] is not a warm-up"),
        ("warmup: [{file: a, inputs: {x: 1}}]", "sample 1: expected either inputs or a file"),
        ("warmup: [{inputs: [x]}]", "sample 1: inputs: ['x'] is not a mapping of names to values"),
        ("warmup: [{rows: 1}, {count: true}]", "sample 2: count: True is not a positive integer"),
    ],
)
def test_what_is_wrong_beside_a_model_is_told(write, text, words):
    faults = []
    assert load_model_file(write(text), faults) == {}
    (fault,) = faults
    assert fault.startswith(f"{write(text)}:1: ")
    assert words in fault
