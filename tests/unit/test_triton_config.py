"""What becomes of each field of a ``config.pbtxt``."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.control.declarations import Declared, differences
from inferd.control.sources.repository import Repository
from inferd.control.sources.repository import discover as discover_files
from inferd.control.sources.triton import read_folder
from inferd.spec.samples import Sample, SampleInput
from inferd.spec.triton.mapping import reshapes_of
from inferd.spec.triton.meaning import MAPPED, REFUSED, WITHOUT_EFFECT, _decisive
from inferd.spec.triton.schema import _LINE, ENUMS, MESSAGES, config_class
from inferd.spec.triton.sequences import hidden_tensors
from inferd.spec.triton.text import read_config
from inferd.spec.values import Sequences, State, Versions
from inferd.types import Signature, TensorSpec

TENSORS = 'input { name: "x" data_type: TYPE_FP32 dims: 4 }\noutput { name: "y" data_type: TYPE_STRING dims: 1 }\n'


def discover(paths: list[Path], overrides: dict, faults: list[str]) -> Repository:
    """What is found; ``faults`` takes the messages."""
    repository = discover_files(paths, overrides)
    faults += [fault.message for fault in repository.faults]
    return repository


def read(folder: Path, text: str) -> tuple[dict[str, Any], list[str], list[str]]:
    folder = folder / "m"
    folder.mkdir(exist_ok=True)
    (folder / "config.pbtxt").write_text(text)
    notes: list[str] = []
    faults: list[str] = []
    found = read_folder(folder, notes, faults)
    return found.given, notes, faults


def every_field(message: str = "ModelConfig", names: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    fields = []
    for line in filter(None, map(str.strip, MESSAGES[message].splitlines())):
        found = _LINE.fullmatch(line)
        assert found is not None, line
        here = (*names, found["name"])
        fields.append(here)
        if found["key"]:
            fields += [(*here, "key"), (*here, "value")]
        inner, below = (found["value"], (*here, "value")) if found["key"] else (found["type"], here)
        if inner in MESSAGES:
            fields += every_field(inner, below)
    return fields


@pytest.mark.parametrize("names", every_field(), ids=".".join)
def test_every_field_is_mapped_noted_or_refused(names: tuple[str, ...]) -> None:
    assert _decisive(names) in MAPPED | set(WITHOUT_EFFECT) | set(REFUSED)


def test_no_field_has_two_fates_and_the_tables_name_fields_that_there_are() -> None:
    tables = [MAPPED, set(WITHOUT_EFFECT), set(REFUSED)]
    assert not any(one & other for one, other in itertools.combinations(tables, 2))
    there = {".".join(names) for names in every_field()}
    assert set().union(*tables) <= there


def test_the_schema_has_every_field_that_tritons_own_has() -> None:
    theirs = pytest.importorskip("tritonclient.grpc.model_config_pb2").ModelConfig.DESCRIPTOR
    pairs, seen = [(theirs, config_class().DESCRIPTOR)], set()
    while pairs:
        other, own = pairs.pop()
        if own.full_name in seen:
            continue
        seen.add(own.full_name)
        assert {field.name for field in other.fields} == {field.name for field in own.fields}, own.name
        for field in other.fields:
            mine = own.fields_by_name[field.name]
            assert (mine.type, mine.is_repeated) == (field.type, field.is_repeated), (own.name, field.name)
            oneofs = [one.containing_oneof.name if one.containing_oneof else None for one in (mine, field)]
            assert oneofs[0] == oneofs[1], (own.name, field.name)
            if field.message_type is not None:
                pairs.append((field.message_type, mine.message_type))
            if field.enum_type is not None:
                assert [one.name for one in mine.enum_type.values] == [one.name for one in field.enum_type.values]
    assert {f"inferd_triton.{name}" for name in MESSAGES} <= seen
    assert len(ENUMS) == 9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ('name: "other"', {"name": "other"}),
        ('platform: "onnxruntime_onnx"', {"runtime": "onnx", "file": "model.onnx"}),
        ('backend: "onnxruntime"', {"runtime": "onnx", "file": "model.onnx"}),
        ('backend: "python"', {"runtime": "python", "file": "model.py"}),
        ('backend: "onnxruntime" default_model_filename: "a.b"', {"runtime": "onnx", "file": "a.b"}),
        ('default_model_filename: "a.py"', {"runtime": "python", "file": "a.py"}),
        ("version_policy { all { } }", {"versions": Versions(None)}),
        ("version_policy { latest { num_versions: 3 } }", {"versions": Versions(3)}),
        ("version_policy { specific { versions: [ 3, 1 ] } }", {"versions": Versions(None, (1, 3))}),
        ("max_batch_size: 8", {"batch_rows_max": 8}),
        ("max_batch_size: 0", {"batching": "off"}),
        ("max_batch_size: 8 dynamic_batching { }", {"batch_rows_max": 8, "batching": "on"}),
        (
            "dynamic_batching { default_priority_level: 2 default_queue_policy { max_queue_size: 100 } }",
            {"priority_default": 2, "queue_rows_max": 100},
        ),
        (
            "max_batch_size: 4 dynamic_batching { default_queue_policy { max_queue_size: 100 } }",
            {"batch_rows_max": 4, "batching": "on", "queue_rows_max": 400},
        ),
        ("instance_group { count: 3 kind: KIND_CPU }", {"replicas": 3, "device": "cpu"}),
        ("instance_group [ { count: 3 }, { count: 2 }, { passive: true } ]", {"replicas": 5, "device": "cpu"}),
        ("instance_group { kind: KIND_GPU }", {"replicas": 1, "device": "cuda:0"}),
        ("instance_group { gpus: 2 count: 2 }", {"replicas": 2, "device": "cuda:2"}),
        (
            'backend: "python" parameters { key: "a" value: { string_value: "1" } }',
            {"runtime": "python", "file": "model.py", "parameters": {"a": "1"}},
        ),
        ('parameters { key: "intra_op_thread_count" value: { string_value: "2" } }', {"threads": 2}),
        ("model_transaction_policy { decoupled: false } response_cache { enable: false }", {}),
        ("input { optional: false }", None),
    ],
)
def test_a_field_becomes_a_setting(tmp_path: Path, text: str, expected: dict[str, Any] | None) -> None:
    given, notes, faults = read(tmp_path, text)
    assert notes == []
    if expected is None:
        assert "has no name and no data_type" in faults[0]
    else:
        assert (given, faults) == (expected, [])


def test_dims_leave_the_batch_dimension_out_where_there_is_one(tmp_path: Path) -> None:
    given, _, faults = read(tmp_path, TENSORS)
    assert faults == []
    assert given["inputs"] == (TensorSpec("x", "FP32", (4,)),)
    assert given["batching"] == "off"
    given, _, _ = read(tmp_path, f"{TENSORS} max_batch_size: 2")
    assert given["inputs"] == (TensorSpec("x", "FP32", (-1, 4)),)
    assert given["outputs"] == (TensorSpec("y", "BYTES", (-1, 1)),)


SAMPLES = {
    "runtime": 'runtime: "libx.so"',
    "input.format": "input { name: 'x' data_type: TYPE_FP32 format: FORMAT_NCHW }",
    "optimization": "optimization { cuda { graphs: true } }",
    "dynamic_batching.preferred_batch_size": "dynamic_batching { preferred_batch_size: [ 4, 8 ] }",
    "dynamic_batching.max_queue_delay_microseconds": "dynamic_batching { max_queue_delay_microseconds: 100 }",
    "dynamic_batching.preserve_ordering": "dynamic_batching { preserve_ordering: true }",
    "dynamic_batching.priority_levels": "dynamic_batching { priority_levels: 2 }",
    "dynamic_batching.default_queue_policy.timeout_action": "dynamic_batching { default_queue_policy { timeout_action:"
    " DELAY } }",
    "dynamic_batching.default_queue_policy.default_timeout_microseconds": "dynamic_batching { default_queue_policy {"
    " default_timeout_microseconds: 9 } }",
    "dynamic_batching.default_queue_policy.allow_timeout_override": "dynamic_batching { default_queue_policy {"
    " allow_timeout_override: true } }",
    "dynamic_batching.priority_queue_policy": "dynamic_batching { priority_queue_policy { key: 1 value: { } } }",
    "ensemble_scheduling.max_inflight_requests": "platform: 'ensemble' input { name: 'x' data_type: TYPE_FP32 }"
    " output { name: 'y' data_type: TYPE_FP32 } ensemble_scheduling { max_inflight_requests: 2 step { model_name: 'a'"
    " input_map { key: 'x' value: 'x' } output_map { key: 'y' value: 'y' } } }",
    "instance_group.name": "instance_group { name: 'g' }",
    "instance_group.rate_limiter": "instance_group { rate_limiter { priority: 2 } }",
    "instance_group.secondary_devices": "instance_group { secondary_devices { device_id: 1 } }",
    "instance_group.profile": "instance_group { profile: '1' }",
    "instance_group.host_policy": "instance_group { host_policy: 'p' }",
    "cc_model_filenames": "cc_model_filenames { key: '7.5' value: 'f' }",
    "metric_tags": "metric_tags { key: 'a' value: 'b' }",
    "response_cache.enable": "response_cache { enable: true }",
    "model_metrics": "model_metrics { metric_control { metric_identifier { family: 'f' } } }",
    "input.is_shape_tensor": "input { name: 'x' data_type: TYPE_FP32 is_shape_tensor: true }",
    "output.is_shape_tensor": "output { name: 'x' data_type: TYPE_FP32 is_shape_tensor: true }",
    "input.is_non_linear_format_io": "input { name: 'x' data_type: TYPE_FP32 is_non_linear_format_io: true }",
    "output.is_non_linear_format_io": "output { name: 'x' data_type: TYPE_FP32 is_non_linear_format_io: true }",
    "input.allow_ragged_batch": "input { name: 'x' data_type: TYPE_FP32 allow_ragged_batch: true }",
    "batch_input": "batch_input { target_name: 'x' }",
    "batch_output": "batch_output { target_name: 'x' }",
    "sequence_batching.direct": "sequence_batching { direct { } }",
    "sequence_batching.oldest": "sequence_batching { oldest { max_candidate_sequences: 4 } }",
    "sequence_batching.iterative_sequence": "sequence_batching { iterative_sequence: true }",
    "ensemble_scheduling.step.model_namespace": "input { name: 'x' data_type: TYPE_FP32 }"
    " output { name: 'y' data_type: TYPE_FP32 } ensemble_scheduling { step { model_name: 'a' model_namespace: 'n'"
    " input_map { key: 'x' value: 'x' } output_map { key: 'y' value: 'y' } } }",
    "model_operations": "model_operations { op_library_filename: 'l' }",
    "model_transaction_policy.decoupled": "model_transaction_policy { decoupled: true }",
    "model_repository_agents": "model_repository_agents { agents { name: 'checksum' } }",
}


SEQUENCES = """
max_batch_size: 4
sequence_batching {
  control_input [
    { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] },
    { name: "ID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING } ] }
  ]
  state [ { input_name: "IN" output_name: "OUT" data_type: TYPE_FP32 dims: [ -1, 2 ]
            initial_state: { data_type: TYPE_FP32 dims: [ 3, 2 ] zero_data: true name: "zeros" } } ]
}
"""


def test_sequences_become_a_setting_and_tensors_that_clients_do_not_see(tmp_path: Path) -> None:
    given, notes, faults = read(tmp_path, SEQUENCES)
    assert (notes, faults) == ([], [])
    state = {"IN": State("OUT", (1, 3, 2))}
    assert given["sequence"] == Sequences(idle_max_s=1.0, start="START", id="ID", state=state)
    assert given["batching"] == "on"
    config = read_config(SEQUENCES, "f", faults)
    assert config is not None
    inputs, outputs = hidden_tensors(config.values)
    assert [str(spec) for spec in inputs] == ["START: INT32[?, 1]", "ID: BYTES[?, 1]", "IN: FP32[?, ?, 2]"]
    assert [str(spec) for spec in outputs] == ["OUT: FP32[?, ?, 2]"]


def test_a_first_state_from_a_file_and_other_marks_than_0_and_1_are_faults(tmp_path: Path) -> None:
    marks = SEQUENCES.replace("int32_false_true: [ 0, 1 ]", "int32_false_true: [ 1, 0 ]")
    text = marks.replace("zero_data: true", 'data_file: "first"')
    _, _, faults = read(tmp_path, text)
    assert [
        "'START': values [1, 0] are not supported" in faults[0],
        "'IN': data_file is not supported" in faults[1],
    ] == [True, True], faults


BESIDE = """max_batch_size: 4
input [ { name: "x" data_type: TYPE_FP32 dims: 2 }, { name: "t" data_type: TYPE_FP32 dims: 1 optional: true } ]
output { name: "y" data_type: TYPE_FP32 dims: 2 label_filename: "labels" }
model_warmup { name: "w" batch_size: 3 count: 2
  inputs { key: "x" value: { data_type: TYPE_FP32 dims: 2 input_data_file: "x" } }
  inputs { key: "t" value: { dims: 1 random_data: true } } }
"""


def test_optional_inputs_labels_and_warm_up_requests_become_settings(tmp_path: Path) -> None:
    for name in ("m/labels", "m/warmup/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    given, notes, faults = read(tmp_path, BESIDE)
    assert (notes, faults) == ([], [])
    assert given["optional"] == {"t": None}
    assert given["labels"] == {"y": "labels"}
    inputs = {
        "t": SampleInput("random", None, None, (1, 1)),
        "x": SampleInput("file", "x", "FP32", (1, 2)),
    }
    assert given["warmup"] == (Sample("w", inputs, rows=3, count=2),)
    given, _, _ = read(tmp_path, BESIDE.replace("max_batch_size: 4", ""))
    (sample,) = given["warmup"]
    # Requests of no batch dimension are run one after the other.
    assert (sample.rows, sample.count, sample.inputs["x"].shape) == (None, 6, (2,))


def test_an_ensemble_has_defaults_and_labels_from_its_steps(tmp_path: Path) -> None:
    text = ENSEMBLE.replace("dims: 4 }", "dims: 4 optional: true }", 1).replace(
        "dims: 4 }", "dims: 4 label_filename: 'l' }", 1
    )
    faults: list[str] = []
    notes = discover([repository(tmp_path, text)], {}, faults).notes
    assert faults == []
    assert notes.pop(0).endswith("/a: version 1 is left out: versions: latest serves 2")
    assert [note.split("config.pbtxt:")[1] for note in notes] == [
        f"{line}: '{field}' has no effect: a pipeline takes it from its steps' models"
        for line, field in ((3, "input.optional"), (4, "output.label_filename"))
    ]


def test_what_model_yaml_says_of_one_input_takes_nothing_from_another(tmp_path: Path) -> None:
    root = repository(tmp_path, a__model="optional: {t: 5}\nlabels: {z: [a]}")
    (root / "a" / "labels").write_text("")
    (root / "a" / "config.pbtxt").write_text(
        BESIDE.split("model_warmup", maxsplit=1)[0].replace("dims: 2 }, {", "dims: 2 optional: true }, {")
    )
    faults: list[str] = []
    (model,) = discover([root], {}, faults).models
    assert faults == []
    assert model.given["optional"] == {"x": None, "t": 5}
    assert model.given["labels"] == {"y": "labels", "z": ["a"]}


def test_a_reshape_has_as_many_elements_as_dims(tmp_path: Path) -> None:
    text = "max_batch_size: 2 input { name: 'x' data_type: TYPE_FP32 dims: [ -1, 6 ] reshape { shape: [ 2, -1, 3 ] } }"
    given, notes, faults = read(tmp_path, text)
    assert (notes, faults) == ([], [])
    assert given["inputs"] == (TensorSpec("x", "FP32", (-1, -1, 6)),)
    config = read_config(text, "f", faults)
    assert config is not None
    shapes = {"seen": [-1, -1, 6], "own": [-1, 2, -1, 3]}
    assert reshapes_of(config.values) == {"inputs": {"x": shapes}, "outputs": {}}
    _, _, faults = read(tmp_path, text.replace("2, -1, 3", "2, 3"))
    assert len(faults) == 1
    assert "config.pbtxt:1: input 'x': element counts of dims [-1, 6] and reshape [2, 3] differ" in faults[0]


@pytest.mark.parametrize("head", ["backend: 'python'", "ensemble_scheduling { }"])
def test_only_onnx_models_are_given_other_shapes(tmp_path: Path, head: str) -> None:
    text = f"{head}\ninput {{ name: 'x' data_type: TYPE_FP32 dims: 2\nreshape {{ shape: [ 1, 2 ] }} }}"
    _, _, faults = read(tmp_path, text)
    assert faults[0].startswith(f"{tmp_path}/m/config.pbtxt:3: 'input.reshape' is not supported: only ONNX models")


def test_tensors_of_a_model_in_python_are_for_its_worker_to_complete(tmp_path: Path) -> None:
    given, _, faults = read(tmp_path, f"backend: 'python' {TENSORS}")
    assert (given, faults) == ({"runtime": "python", "file": "model.py"}, [])


@pytest.mark.parametrize("field", [*WITHOUT_EFFECT, *REFUSED])
def test_what_is_not_supported_is_told_once_with_its_line(tmp_path: Path, field: str) -> None:
    _, notes, faults = read(tmp_path, f"# a comment\n\n{SAMPLES[field]}\n")
    told, silent = (notes, faults) if field in WITHOUT_EFFECT else (faults, notes)
    assert len(told) == 1
    assert silent == []
    assert told[0].startswith(f"{tmp_path}/m/config.pbtxt:3: '{field}' ")
    assert "has no effect: " in told[0] or ("is not supported: " in told[0] and "\nhelp: " in told[0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("instance_group { gpus: [ 0, 1 ] }", "'cuda:1' has no effect: all replicas of a model run on one device"),
        ('parameters { key: "a" value: { string_value: "1" } }', "parameter 'a' has no effect"),
        (
            'backend: "python" parameters { key: "EXECUTION_ENV_PATH" value: { string_value: "e" } }',
            "python: in model.yaml",
        ),
    ],
)
def test_values_that_have_no_effect_are_told(tmp_path: Path, text: str, words: str) -> None:
    _, notes, faults = read(tmp_path, text)
    assert faults == []
    assert len(notes) == 1
    assert words in notes[0]
    assert notes[0].startswith(f"{tmp_path}/m/config.pbtxt:1: ")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("\nname: 3", 2, "Expected string"),
        ("name: 'a'\nname: 'b'", 2, "multiple"),
        ("\n\ninput [ { dim: 4 name: 'x' data_type: TYPE_BOOL } ]", 3, "unknown field 'dim'; did you mean 'dims'?"),
        ("\nmax_batchsize: 3", 2, "did you mean 'max_batch_size'?"),
        ("max_batch_size: eight", 1, "Couldn't parse integer: eight"),
        ("input {\n data_type: TYPE_FP33 }", 2, "no value named TYPE_FP33"),
        ("input {", 1, 'Expected "}"'),
        ("dynamic_batching { }\nsequence_batching { }", 2, "another member of oneof"),
        ("\nbackend: 'tensorrt'", 2, "unsupported backend 'tensorrt'"),
        ("\nplatform: 'pytorch_libtorch'", 2, "run its framework from a model.py"),
        ("backend: 'python' platform: 'onnxruntime_onnx'", 1, "unsupported backend 'python' and platform"),
        ("\ndefault_model_filename: 'a/b/c.onnx'", 2, "does not match"),
        ("\ndefault_model_filename: '../b.onnx'", 2, "does not match"),
        ("\ninstance_group { count: 999 }", 2, "the maximum is 256"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    _, _, faults = read(tmp_path, text)
    assert len(faults) == 1
    assert faults[0].startswith(f"{tmp_path}/m/config.pbtxt:{line}: ")
    assert words in faults[0]


def test_all_unknown_fields_are_told_together() -> None:
    faults: list[str] = []
    assert read_config("a: 1\nb { c: [ 1, 'x' 'y' ], d <e: -1> }\nname: 'n' # b", "f", faults) is not None
    assert [fault.split("'")[1] for fault in faults] == ["a", "b"]


@given(st.text() | st.text("{}<>[]:,;'\"#-\n ainput1"))
def test_no_text_is_too_strange_to_be_told_so(text: str) -> None:
    faults: list[str] = []
    assert read_config(text, "f", faults) is not None or faults


@pytest.mark.parametrize("text", ["a { " * 5000, "a { " * 5000 + "}" * 5000, "a: [" * 5000])
def test_text_that_is_nested_without_end_is_told(text: str) -> None:
    faults: list[str] = []
    assert read_config(text, "f", faults) is None
    assert len(faults) == 1


def test_text_in_all_its_forms_keeps_its_lines() -> None:
    faults: list[str] = []
    text = "input [ {\n name: 'x' ; dims: [ 1,\n -2 ] }, <name: 'a'\n \"b\"> ]\nparameters: { key: 'k' value <string_value: 'v'> }"
    config = read_config(text, "f", faults)
    assert config is not None
    assert faults == []
    assert config.values["input"][0]["dims"] == [1, -2]
    assert config.values["input"][1]["name"] == "ab"
    assert config.values["parameters"] == {"k": {"string_value": "v"}}
    assert config.source.lines["input", 0, "dims", 1] == 3
    assert config.source.lines["input", 1, "name"] == 3
    assert config.source.lines["parameters",] == 5


ENSEMBLE = """
platform: "ensemble"
input { name: "RAW" data_type: TYPE_FP32 dims: 4 }
output { name: "OUT" data_type: TYPE_FP32 dims: 4 }
ensemble_scheduling {
  step { model_name: "a" model_version: 2
    input_map { key: "x" value: "RAW" } output_map { key: "y" value: "between" } }
  step { model_name: "a" model_version: -1
    input_map { key: "x" value: "between" } output_map { key: "y" value: "OUT" } }
}
"""


def repository(folder: Path, ensemble: str = ENSEMBLE, **files: str) -> Path:
    for name in ("a/1/model.onnx", "a/2/model.onnx", "e/config.pbtxt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(ensemble if name.startswith("e") else "")
    for name, text in files.items():
        (folder / name.replace("__", "/")).with_suffix(".yaml").write_text(text)
    return folder


def test_an_ensemble_is_a_pipeline_whose_tensors_are_named_by_their_steps(tmp_path: Path) -> None:
    faults: list[str] = []
    found = discover([repository(tmp_path, e__model="slo: 50ms\npriority_default: 0")], {"slo": None}, faults)
    assert faults == []
    assert [(model.name, model.version) for model in found.models] == [("a", 2)]
    (pipeline,) = found.pipelines
    assert pipeline == {
        "name": "e",
        "slo": {"latency_s": 0.05, "percentile": 99.0},
        "priority_default": 0,
        "steps": [
            {"name": "a-1", "models": [("a", 1)], "inputs": [("x", ["RAW"])], "when": None, "optional": False},
            {"name": "a-2", "models": [("a", 1)], "inputs": [("x", ["a-1.y"])], "when": None, "optional": False},
        ],
        "outputs": [("OUT", ["a-2.y"])],
    }
    assert found.declared["e"]["inputs"] == (TensorSpec("RAW", "FP32", (4,)),)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        (
            'value: "between" } output',
            'value: "betwen" } output',
            8,
            "no input or step provides tensor 'betwen'",
        ),
        ('output { name: "OUT"', 'output { name: "UOT"', 4, "no step provides output 'UOT'; did you mean 'OUT'?"),
        ("model_version: 2", "model_version: 1", 6, "asks for version 1 of 'a', and gets 2"),
    ],
)
def test_what_is_wrong_with_an_ensemble_is_told_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, words: str
) -> None:
    faults: list[str] = []
    discover([repository(tmp_path, ENSEMBLE.replace(old, new))], {}, faults)
    assert len(faults) == 1
    assert faults[0].startswith(f"{tmp_path}/e/config.pbtxt:{line}: ")
    assert words in faults[0]


def test_settings_of_an_ensemble_that_belong_to_models_are_told(tmp_path: Path) -> None:
    faults: list[str] = []
    text = ENSEMBLE + "instance_group { count: 2 }"
    found = discover([repository(tmp_path, text, e__model="replicas: 2")], {}, faults)
    assert faults == [
        f"{tmp_path}/e/model.yaml: 'replicas' has no effect on an ensemble; write it at the models of its steps"
    ]
    assert found.notes == [
        f"{tmp_path}/a: version 1 is left out: versions: latest serves 2",
        f"{tmp_path}/e/config.pbtxt:11: 'instance_group' has no effect on a pipeline; set it on its models",
    ]


def test_model_yaml_stands_above_config_pbtxt_and_below_the_command_line(tmp_path: Path) -> None:
    root = repository(tmp_path, a__model="replicas: 3\nslo: 20ms")
    (root / "a" / "config.pbtxt").write_text("max_batch_size: 8 instance_group { count: 2 }")
    faults: list[str] = []
    (model,) = discover([root], {"batch_rows_max": 4}, faults).models
    assert faults == []
    assert (model.given["replicas"], model.given["batch_rows_max"]) == (3, 4)
    assert model.config is not None
    assert model.config["max_batch_size"] == 8


def test_folders_beside_the_versions_are_passed_over_and_told(tmp_path: Path) -> None:
    root = repository(tmp_path)
    (root / "a" / "config.pbtxt").write_text("")
    (root / "a" / "tools").mkdir()
    faults: list[str] = []
    found = discover([root], {}, faults)
    assert faults == []
    assert found.notes == [
        f"{root}/a: 'tools' is no version, and is passed over",
        f"{root}/a: version 1 is left out: versions: latest serves 2",
    ]


def test_a_namespace_stands_before_the_names_of_models_and_pipelines(tmp_path: Path) -> None:
    one, other = repository(tmp_path / "one"), repository(tmp_path / "other")
    faults: list[str] = []
    found = discover([Path(f"p={one}"), Path(f"q={other}")], {}, faults)
    assert faults == []
    assert [model.name for model in found.models] == ["p.a", "q.a"]
    assert [pipeline["name"] for pipeline in found.pipelines] == ["p.e", "q.e"]
    assert found.pipelines[1]["steps"][0]["models"] == [("q.a", 1)]
    assert set(found.declared) == {"p.e", "q.e"}


def test_an_entry_of_inferd_yaml_has_a_namespace(tmp_path: Path) -> None:
    repository(tmp_path / "one")
    (tmp_path / "inferd.yaml").write_text("models:\n  - {path: one, namespace: p}\n  - {path: one, namespace: q.r}\n")
    faults: list[str] = []
    found = discover([tmp_path], {}, faults)
    assert faults == []
    assert [model.name for model in found.models] == ["p.a", "q.r.a"]
    (tmp_path / "inferd.yaml").write_text("models:\n  - {path: one, namespace: 'a/b'}\n")
    discover([tmp_path], {}, faults)
    assert "inferd.yaml:2: namespace: 'a/b' does not match" in faults[0]


def test_a_clash_of_names_is_told_with_the_namespaces_that_would_end_it(tmp_path: Path) -> None:
    faults: list[str] = []
    discover([repository(tmp_path / "one"), repository(tmp_path / "other")], {}, faults)
    assert "inferd serve a=REPOSITORY b=REPOSITORY" in faults[0]


SIGNATURE = Signature(
    (TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 4)), TensorSpec("z", "BOOL", (1,)))
)


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        (None, None, None),
        ([("x", "FP32", (-1, 4))], [("y", "FP32", (8, 4))], None),
        ([("x", "FP32", (-1, 5))], None, "input 'x: FP32[?, 5]' is declared; the model has 'x: FP32[?, 4]'"),
        ([("x", "FP32", (4,))], None, "input 'x: FP32[4]' is declared"),
        ([("x", "FP16", (-1, 4))], None, "input 'x: FP16[?, 4]' is declared"),
        ([("x", "FP32", (-1, -1))], None, "input 'x: FP32[?, ?]' is declared"),
        (None, [("q", "FP32", (1,))], "output 'q' is declared; the model has y: FP32[?, 4], z: BOOL[1]"),
    ],
)
def test_a_declaration_is_held_against_what_the_model_has(inputs: Any, outputs: Any, words: str | None) -> None:
    sides = [None if side is None else [TensorSpec(*one) for one in side] for side in (inputs, outputs)]
    found = differences(Declared(*sides), SIGNATURE)
    assert [words in one for one in found] == [True] if words else found == []


def test_an_ensemble_may_leave_sizes_open_that_its_models_fix() -> None:
    open_size = [TensorSpec("x", "FP32", (-1, -1))]
    assert differences(Declared(open_size, None, open_sizes=True), SIGNATURE) == []
    assert differences(Declared(open_size, None), SIGNATURE) != []


def test_an_input_that_is_not_declared_is_told() -> None:
    two = Signature((*SIGNATURE.inputs, TensorSpec("w", "BOOL", (1,))), SIGNATURE.outputs)
    assert differences(Declared(SIGNATURE.inputs, None), two) == [
        "the model takes input 'w: BOOL[1]', which is not declared"
    ]
