"""The built module against its stub, and the errors that it raises."""

import ast
import inspect
import json
import socket
from pathlib import Path

import pytest

import inferd
from inferd import _native, errors
from inferd.control.config import desired_state
from inferd.control.dataplane import DataPlane
from inferd.control.resources import observe

STUB = ast.parse(Path(inferd.__file__).with_name("_native.pyi").read_text())


def names_in(body):
    functions = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    return functions | {node.target.id for node in body if isinstance(node, ast.AnnAssign)}


def public(names):
    return {name for name in names if not name.startswith("_") or name == "__version__"}


def test_the_stub_has_the_names_of_the_built_module_and_no_others():
    classes = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}
    assert public(dir(_native)) == public(names_in(STUB.body)) | classes.keys()
    for name, node in classes.items():
        assert public(vars(getattr(_native, name))) == public(names_in(node.body)), name


def test_the_stub_has_the_arguments_of_the_built_module():
    for node in ast.walk(STUB):
        owners = (
            [(STUB, _native)]
            if node is STUB
            else [(node, getattr(_native, node.name))]
            if isinstance(node, ast.ClassDef)
            else []
        )
        for stub, built in owners:
            for function in stub.body:
                if (
                    isinstance(function, ast.FunctionDef)
                    and not function.name.startswith("__")
                    and not function.decorator_list
                ):
                    signature = inspect.signature(getattr(built, function.name))
                    wanted = [argument.arg for argument in function.args.args]
                    assert list(signature.parameters) == wanted, function.name


def test_every_kind_of_error_has_a_class():
    classes = _native.error_classes()
    assert len(classes) >= 15
    for name in classes:
        assert issubclass(getattr(errors, name), errors.InferdError)


def gateway(**settings):
    desired = desired_state([], {"port": 0, "metrics_port": 0, **settings}, {}, observe())
    return desired.gateway, desired.log


def test_every_setting_crosses_and_an_unknown_one_is_refused():
    settings, log = gateway()
    with pytest.raises(errors.InternalError, match="unknown field `extra`"):
        _native.DataPlane(json.dumps({"gateway": {**settings, "extra": 1}, "log": log}))
    with pytest.raises(errors.InternalError, match="missing field"):
        _native.DataPlane(json.dumps({"gateway": {}, "log": log}))


def test_a_data_plane_starts_tells_its_addresses_and_ends():
    data_plane = DataPlane(*gateway())
    assert set(data_plane.addresses) == {"data", "metrics"}
    assert data_plane.status() == {"models": []}
    with pytest.raises(errors.NotFound):
        data_plane.unload("absent", 1)
    assert data_plane.drain(1.0) == 0
    data_plane.close()
    data_plane.close()
    with pytest.raises(errors.Draining):
        data_plane.status()


def test_no_metrics_port_means_no_metrics():
    data_plane = DataPlane(*gateway(metrics_port=None))
    assert set(data_plane.addresses) == {"data"}
    data_plane.close()


@pytest.mark.parametrize(("setting", "flag"), [("port", "--port"), ("metrics_port", "--metrics-port")])
def test_a_port_that_is_taken_is_named_with_the_flag_that_changes_it(setting, flag):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(errors.InferdError) as raised:
            DataPlane(*gateway(**{setting: port}))
    assert str(port) in str(raised.value)
    assert flag in str(raised.value)


def test_a_log_level_that_means_nothing_is_refused():
    with pytest.raises(errors.InvalidInput, match="log_level"):
        DataPlane(*gateway(log_level="=,="))
