"""Models that are served from ONNX answer, and refuse, as their libraries do."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import joblib
import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import inferd
from inferd.control.loading import profiles
from inferd.control.loading.conversions import Conversions
from inferd.errors import ModelFailed
from outside.process import Inferd

if TYPE_CHECKING:
    from collections.abc import Callable

COLUMNS = 3
FP32_MAX = float(np.finfo(np.float32).max)


class Made(NamedTuple):
    """A model on disk, and what its library answers."""

    file: Path
    answer: Callable[[np.ndarray], dict[str, np.ndarray]]
    settings: dict[str, Any] = {}  # noqa: RUF012 (nobody writes to it)


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(size=(300, COLUMNS))
    return x, 1e3 * x[:, 0] + 123456789.25, np.array(["no", "yes"])[(x[:, 0] + x[:, 2] ** 2 > 0.5).astype(int)]


def scikit_learn(folder: Path, model: Any, target: str) -> Made:
    x, number, name = data()
    model.fit(x, {"number": number, "name": name}[target])
    joblib.dump(model, folder / "m.joblib")
    trusted = hashlib.sha256((folder / "m.joblib").read_bytes()).hexdigest()

    def answer(rows: np.ndarray) -> dict[str, np.ndarray]:
        if target == "number":
            return {"prediction": model.predict(rows)}
        return {"label": model.predict(rows), "probabilities": model.predict_proba(rows)}

    return Made(folder / "m.joblib", answer, {"trusted_sha256": trusted})


def light(folder: Path) -> Made:
    x, number, _ = data()
    booster = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(x, number), 20)
    booster.save_model(folder / "m.lgb")
    return Made(folder / "m.lgb", lambda rows: {"prediction": booster.predict(rows, num_threads=1)})


def extreme(folder: Path) -> Made:
    x, _, name = data()
    rows = xgboost.DMatrix(x, name == "yes", nthread=1)
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, rows, 20)
    booster.save_model(folder / "m.ubj")
    return Made(folder / "m.ubj", lambda rows: {"prediction": booster.inplace_predict(rows)})


MAKERS: dict[str, Callable[[Path], Made]] = {
    "a forest": lambda folder: scikit_learn(folder, RandomForestClassifier(10, random_state=0), "name"),
    "a forest of numbers": lambda folder: scikit_learn(folder, RandomForestRegressor(10, random_state=0), "number"),
    "a line": lambda folder: scikit_learn(folder, LinearRegression(), "number"),
    "a logistic line": lambda folder: scikit_learn(folder, LogisticRegression(), "name"),
    "gradient boosting": lambda folder: scikit_learn(folder, GradientBoostingClassifier(n_estimators=10), "name"),
    "neurons": lambda folder: scikit_learn(folder, MLPClassifier((8,), max_iter=30), "name"),
    "LightGBM": light,
    "XGBoost": extreme,
}


def ask(url: str, rows: np.ndarray) -> tuple[int, dict[str, Any]]:
    values = [None if np.isnan(value) else value for value in rows.ravel().tolist()]
    tensor = {"name": "x", "datatype": "FP64", "shape": list(rows.shape), "data": values}
    # Python writes infinity as the servers of the protocol read it.
    answer = httpx.post(f"{url}/v2/models/m/infer", content=json.dumps({"inputs": [tensor]}), timeout=60)
    return answer.status_code, answer.json()


def outputs(body: dict[str, Any]) -> dict[str, np.ndarray]:
    dtypes = {"FP64": np.float64, "FP32": np.float32, "BYTES": object}
    return {
        one["name"]: np.array(one["data"], dtypes[one["datatype"]]).reshape(one["shape"]) for one in body["outputs"]
    }


def facts(server: inferd.Server) -> str:
    return server.models[0].facts["faster"]


@pytest.fixture(scope="module", params=MAKERS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return MAKERS[request.param](tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def server(made, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        with inferd.Server(made.file, name="m", threads=1, **made.settings) as server:
            assert not facts(server).startswith("no: ")
            yield server


def questions() -> list[np.ndarray]:
    x, _, _ = data()
    ordinary = x[:20]
    single = [x[:1].copy() for _ in range(9)]
    places = [
        (0, np.nan),
        (2, np.nan),
        (1, np.inf),
        (1, -np.inf),
        (0, 1e39),
        (2, -1e39),
        (0, 1e-40),
        (1, -0.0),
        (2, 1e30),
    ]
    for row, (column, value) in zip(single, places, strict=True):
        row[0, column] = value
    return [ordinary, *single, np.full((1, COLUMNS), np.nan)]


def test_what_is_served_from_onnx_answers_and_refuses_as_the_library_does(server, made):
    for rows in questions():
        try:
            with np.errstate(over="ignore"):
                wanted = made.answer(rows)
        except ValueError:
            wanted = None
        status, body = ask(server.url, rows)
        if wanted is None:
            assert status == 400, (rows, body)
            assert "row 0" in body["error"]
            continue
        assert status == 200, (rows, body)
        found = outputs(body)
        assert found.keys() == wanted.keys()
        for name, values in wanted.items():
            if values.dtype.kind == "f":
                assert found[name].dtype == values.dtype
                np.testing.assert_allclose(found[name], values, rtol=1e-6 if values.dtype == np.float32 else 1e-12)
            else:
                assert found[name].tolist() == values.tolist()


def test_what_is_served_from_onnx_looks_as_the_library_does(server, made, cache):
    with inferd.Server(made.file, name="m", threads=1, faster=False, **made.settings) as library:
        assert facts(library) == "no: faster is off in its settings"
        # What batching rests on is another thing: operators here, the kind of estimator there.
        found, wanted = (replace(one.models[0].signature, verdict=None) for one in (server, library))
        assert found == wanted


def test_one_row_that_is_refused_does_not_refuse_its_neighbours(tmp_path, cache):
    steps = make_pipeline(StandardScaler(), RandomForestClassifier(10, random_state=0))
    x, _, name = data()
    steps.fit(x * [1e-3, 1, 1], name)
    joblib.dump(steps, tmp_path / "m.joblib")
    trusted = hashlib.sha256((tmp_path / "m.joblib").read_bytes()).hexdigest()
    with inferd.Server(tmp_path / "m.joblib", name="m", threads=1, trusted_sha256=trusted) as server:
        assert not facts(server).startswith("no: "), facts(server)
        beyond = np.array([[1e36, 0.0, 0.0]])
        with pytest.raises(ValueError, match="float32"), np.errstate(over="ignore"):
            steps.predict(beyond)
        status, body = ask(server.url, beyond)
        assert status == 400, body
        assert "beyond FP32" in body["error"]
        assert ask(server.url, x[:1])[0] == 200


def test_what_only_the_tolerance_stands_in_the_way_of_is_told_and_can_be_allowed(tmp_path, cache):
    x, _, name = data()
    model = make_pipeline(StandardScaler(), SVC(probability=True, random_state=0)).fit(x, name)
    joblib.dump(model, tmp_path / "m.joblib")
    settings = {"trusted_sha256": hashlib.sha256((tmp_path / "m.joblib").read_bytes()).hexdigest()}
    with inferd.Server(tmp_path / "m.joblib", threads=1, **settings) as server:
        told = facts(server)
    assert told.startswith("no: as ONNX its answers are apart by up to ")
    assert "times as fast" in told
    proposed = float(told.split("faster_tolerance: ")[1].split()[0])
    with inferd.Server(tmp_path / "m.joblib", threads=1, faster_tolerance=proposed, **settings) as server:
        assert facts(server).startswith("converted from scikit-learn")


# -- nothing depends on the cache -------------------------------------------------------------------------------------


@pytest.mark.parametrize("home", ["nowhere", "a file"])
def test_with_a_home_that_can_not_be_written_models_are_served_from_onnx(tmp_path, monkeypatch, home):
    made = light(tmp_path)
    place = Path("/proc/self/home") if home == "nowhere" else tmp_path / "home"
    if home == "a file":
        place.write_text("")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Inferd(tmp_path / "server", made.file, "--name", "m", "--threads", "1") as server:
        status, body = ask(server.url, data()[0][:5])
        assert status == 200, body
        assert outputs(body)["prediction"].tolist() == made.answer(data()[0][:5])["prediction"].tolist()
        assert list(tmp_path.glob("inferd-*/model.onnx"))
    assert not list(tmp_path.glob("inferd-*"))


def test_a_second_server_takes_what_the_first_one_kept(tmp_path, cache):
    made = light(tmp_path)
    for _ in range(2):
        with inferd.Server(made.file, name="m", threads=1) as server:
            assert facts(server).startswith("converted from lightgbm")
        (kept,) = cache.glob("faster/*/verdict.json")
        # Figures that no measurement gives: whoever tells them has read them here.
        text = kept.read_text().replace("times as fast", "times (as was measured before) as fast")
        kept.write_text(text)
    with inferd.Server(made.file, name="m", threads=1) as server:
        assert "as was measured before" in facts(server)


def test_a_conversion_that_can_not_be_loaded_is_served_by_its_library(tmp_path, cache):
    made = light(tmp_path)
    with inferd.Server(made.file, name="m", threads=1):
        pass
    (folder,) = cache.glob("faster/*")
    (folder / "model.onnx").write_bytes(b"no graph")
    kept = json.loads((folder / "verdict.json").read_text())
    kept["model"] = hashlib.sha256(b"no graph").hexdigest()
    (folder / "verdict.json").write_text(json.dumps(kept))
    with inferd.Server(made.file, name="m", threads=1) as server:
        assert facts(server).startswith("no: its ONNX model could not be loaded (")
        assert ask(server.url, data()[0][:5])[0] == 200


# -- every exception is told ------------------------------------------------------------------------------------------


class Panic(BaseException):
    """What Rust's panics are."""


@pytest.mark.parametrize("fault", [RuntimeError("boom"), KeyError("boom"), Panic("boom")])
def test_whatever_a_load_raises_ends_the_start_with_the_models_name(tmp_path, cache, monkeypatch, fault):
    made = light(tmp_path)

    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(profiles.ProfileCache, "find", fail)
    server = inferd.Server(made.file, name="m", threads=1)
    with pytest.raises(ModelFailed, match=rf"model 'm' version 1: {type(fault).__name__}: .*boom") as raised:
        server.start()
    assert "in fail" in (raised.value.detail or "")


def test_whatever_a_conversion_raises_the_library_serves(tmp_path, cache, monkeypatch):
    made = light(tmp_path)

    def fail(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(Conversions, "_found", fail)
    with inferd.Server(made.file, name="m", threads=1) as server:
        assert facts(server) == "no: its conversion to ONNX failed (RuntimeError: boom)"
        assert ask(server.url, data()[0][:5])[0] == 200
