import json

import pytest

from inferd.cli.commands import FAILED, WRONG, run
from inferd.cli.show import curl_line, table
from inferd.types import Signature, TensorSpec


def test_settings_are_printed_as_markdown_and_as_a_schema(capsys):
    assert run(["settings"]) == 0
    assert "| `port` |" in capsys.readouterr().out
    assert run(["settings", "--json-schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "inferd.yaml"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve"], "PATH"),
        (["check", "absent.onnx"], "no such file"),
        (["check", "x", "--slo", "20"], "20ms"),
        (["check", "x", "--port", "99999"], "the maximum is 65535"),
        (["check", "x", "--replica", "2"], "--replicas"),
        (["nothing"], "nothing"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_would_be_right(arguments, words, capsys):
    assert run(arguments) == WRONG
    assert words in capsys.readouterr().err
    assert FAILED == 1


def test_check_shows_what_would_be_served(tmp_path, capsys):
    (tmp_path / "iris.py").write_text("class Iris:\n    def load(self): ...\n    def predict(self, batch): ...\n")
    assert run(["check", str(tmp_path / "iris.py"), "--slo", "20ms", "--replicas", "2", "--threads", "1"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["MODEL", "VERSION", "FILE"]
    assert "iris" in row
    assert "2 × 1 thread" in row
    assert "p99 20ms" in row


def test_columns_of_a_table_are_aligned():
    assert table([("A", "BB"), ("long", "x")]) == "A     BB\nlong  x"


def test_the_curl_line_has_zeros_of_the_least_size_or_asks_for_metadata():
    small = Signature((TensorSpec("x", "FP32", (-1, 2)), TensorSpec("t", "BYTES", (-1,))), ())
    line = curl_line("127.0.0.1:1", "m", small)
    body = json.loads(line.split("'")[1])
    assert body["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0, 0]}
    assert body["inputs"][1]["data"] == ["text"]
    assert curl_line("h:1", "m", Signature((TensorSpec("x", "FP32", (-1, 3, 224, 224)),), ())).endswith("/v2/models/m")
    assert curl_line("h:1", "m", Signature((TensorSpec("x", "BF16", (-1,)),), ())).endswith("/v2/models/m")
