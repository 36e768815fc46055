from pathlib import Path

import pytest

from inferd.control.config import desired_state
from inferd.control.resources import Machine
from inferd.errors import SpecError
from inferd.spec.settings import ModelSpec, ServerSpec
from inferd.spec.values import Objective

MACHINE = Machine((0, 1, 2, 3), None, {"PATH": "/bin"}, Path("/nonexistent"))


@pytest.fixture
def python_model(tmp_path):
    (tmp_path / "iris.py").write_text("")
    return tmp_path / "iris.py"


def test_a_plan_leaves_nothing_open(python_model):
    desired = desired_state([python_model], {}, {"replicas": 2, "pin": True}, MACHINE)
    (model,) = desired.models
    assert desired.gateway["gateway_threads"] == 1
    assert desired.gateway["port"] == 8000
    assert model.threads == 2
    shared = model.settings["machine"]
    assert (shared["cpus"], shared["cores"], shared["threads"], shared["pin"]) == ((0, 1, 2, 3), 4, None, True)
    assert model.settings["env"]["OMP_NUM_THREADS"] == "2"
    assert model.settings["launch"]["zygote"]["command"][1:] == ["-P", "-m", "inferd.worker.zygote"]
    assert model.settings["slo"] is None


def test_free_ports_are_taken_only_where_none_is_given(python_model):
    assert desired_state([python_model], {}, {}, MACHINE, ports_free=True).server.port == 0
    assert desired_state([python_model], {"port": 7}, {}, MACHINE, ports_free=True).server.port == 7


def test_faults_of_every_path_are_raised_together(tmp_path):
    with pytest.raises(SpecError) as raised:
        desired_state([tmp_path / "a.onnx", tmp_path / "b.onnx"], {}, {}, MACHINE)
    assert len(raised.value.faults) == 2


def test_one_name_for_two_models_is_a_fault(tmp_path):
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("")
    with pytest.raises(SpecError, match="'name' was given for 2 models"):
        desired_state([tmp_path / "a.py", tmp_path / "b.py"], {}, {"name": "x"}, MACHINE)


def test_what_must_not_run_twice_is_not_hedged(python_model):
    hedged = {"hedge_budget": 0.05}
    (model,) = desired_state([python_model], {}, hedged, MACHINE).models
    assert (model.settings["hedge_budget"], model.settings["ejection"]) == (0.05, True)
    with pytest.raises(SpecError, match="retry_on_worker_loss: false forbids\nhelp: leave one of the two out"):
        desired_state([python_model], {}, {**hedged, "retry_on_worker_loss": False}, MACHINE)


def test_what_must_not_run_twice_is_not_verified(python_model):
    verified = {"batching": "verify", "batch_tolerance_relative": 0.5}
    (model,) = desired_state([python_model], {}, verified, MACHINE).models
    tolerance = {"absolute": 1e-5, "relative": 0.5}
    assert model.settings["comparison"] == {"verify": True, "tolerance": tolerance}
    with pytest.raises(SpecError, match="retry_on_worker_loss: false forbids\nhelp: leave one of the two out"):
        desired_state([python_model], {}, {**verified, "retry_on_worker_loss": False}, MACHINE)


def test_every_setting_has_a_use(python_model):
    """A setting that is declared and never read would be a promise that nobody keeps."""
    here = Path(__file__).parents[2] / "python/inferd"
    code = "\n".join(file.read_text() for part in ("control", "runtimes") for file in (here / part).rglob("*.py"))
    for spec in (ServerSpec, ModelSpec):
        for name in spec.__struct_fields__:
            assert f'"{name}"' in code or f"spec.{name}" in code, name


STAGED = """
class Staged(Model):
    def preprocess(self, text): ...
    def predict(self, x): ...
    def postprocess(self, y): ...
"""


def test_stages_share_what_stands_beside_their_model(tmp_path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.py").write_text(STAGED)
    (tmp_path / "m" / "model.yaml").write_text("optional: {text: a}\nlabels: {y: [a]}\nwarmup: [{rows: 2}]\n")
    desired = desired_state([tmp_path / "m"], {}, {}, MACHINE)
    first, middle, last = (model.settings for model in desired.models)
    assert [one["optional"] for one in (first, middle, last)] == [{"text": "a"}, {}, {}]
    assert [list(one["labels"]) for one in (first, middle, last)] == [[], [], ["y"]]
    assert [len(one["samples"]) for one in (first, middle, last)] == [1, 0, 0]
    assert [one["warmup"] for one in (first, middle, last)] == [True] * 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "is no request in JSON: Input data was truncated"),
        (b'{"instances": []}', "missing required field `inputs`"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1], "data": []}]}', "Expected `int` >= 0"),
    ],
)
def test_a_request_that_is_none_is_told_with_what_would_be(tmp_path, text, words):
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "warmup").mkdir()
    (tmp_path / "m" / "warmup" / "r.json").write_bytes(text)
    (tmp_path / "m" / "labels").write_bytes(b"\xff\n")
    (tmp_path / "m" / "1" / "model.py").write_text("")
    (tmp_path / "m" / "model.yaml").write_text("warmup: [{file: r.json}]\nlabels: {y: labels}\n")
    with pytest.raises(SpecError) as raised:
        desired_state([tmp_path / "m"], {}, {}, MACHINE)
    labels, sample = raised.value.faults
    assert words in sample
    assert "'datatype'" in sample or '"datatype"' in sample
    assert "is not UTF-8 text" in labels


def test_the_largest_batch_follows_the_objective_where_none_is_given(python_model):
    def rows(given):
        (model,) = desired_state([python_model], {}, given, MACHINE).models
        assert model.spec.batch_rows_max == model.settings["batch_rows_max"] == model.settings["load"]["batch_rows_max"]
        return model.settings["batch_rows_max"]

    slo = Objective(0.025)
    assert rows({}) == 32
    assert rows({"slo": slo}) == 128
    assert rows({"slo": slo, "batch_rows_max": 8}) == 8
