import subprocess
import sys

import pytest

import inferd
from inferd import errors


def test_the_public_names_are_at_most_40_and_all_there():
    assert len(inferd.__all__) <= 40
    assert inferd.__all__ == sorted(inferd.__all__)
    for name in inferd.__all__:
        assert getattr(inferd, name) is not None
    assert set(inferd.__all__) <= set(dir(inferd))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'serve'"):
        inferd.serve  # noqa: B018


def test_every_error_is_public_has_one_root_and_stands_in_the_tree():
    own = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert own == set(errors.__all__)
    assert own <= set(inferd.__all__)
    assert all(issubclass(getattr(errors, name), errors.InferdError) for name in own)
    assert all(name in (errors.__doc__ or "") for name in own)


def test_errors_are_built_ins_where_they_fit_and_keep_their_fields():
    error = errors.DeadlineMissed("late", detail="trace", retry_after_s=0.5)
    assert isinstance(error, TimeoutError)
    assert (str(error), error.detail, error.retry_after_s) == ("late", "trace", 0.5)
    assert isinstance(errors.Forbidden("no"), PermissionError)
    assert str(errors.SpecError(["a:1: x", "a:2: y"])) == "a:1: x\na:2: y"


def test_the_command_line_loads_no_framework():
    script = (
        "import sys, inferd.cli.commands, inferd.control.config, inferd.control.resources;"
        "print(*{'numpy', 'onnx', 'onnxruntime', 'sklearn', 'asyncio', 'pydantic', 'importlib.metadata'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
