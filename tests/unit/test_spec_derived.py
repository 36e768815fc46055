import re

import pytest
from click.testing import CliRunner

from inferd.cli.commands import app
from inferd.spec.convert import convert_value
from inferd.spec.declare import settings_of
from inferd.spec.describe import flag_of, json_schema, reference, show
from inferd.spec.settings import ModelSpec, ServerSpec

EVERY = [setting for spec in (ServerSpec, ModelSpec) for setting in settings_of(spec).values()]


@pytest.mark.parametrize("setting", EVERY, ids=lambda setting: setting.key)
def test_every_setting_says_what_it_means_and_why(setting):
    assert setting.meaning.endswith(".")
    assert setting.why.endswith(".")


@pytest.mark.parametrize("setting", EVERY, ids=lambda setting: setting.key)
def test_every_default_is_a_value_that_could_be_written(setting):
    if setting.kind in ("duration", "size", "objective") and setting.default is not None:
        assert convert_value(setting, show(setting, setting.default)) == setting.default
    elif setting.kind == "plain" or setting.default is None:
        assert convert_value(setting, setting.default) == setting.default


def test_names_of_durations_and_sizes_end_in_their_unit():
    for setting in EVERY:
        assert (setting.kind == "duration") == setting.key.endswith("_s"), setting.key
        assert (setting.kind == "size") == setting.key.endswith("_bytes"), setting.key


def test_serve_has_a_flag_for_every_setting_that_is_one():
    text = CliRunner().invoke(app, ["serve", "--help"]).output
    flags = set(re.findall(r"^\s+(--[a-z-]+)", text, re.MULTILINE))
    assert {flag_of(setting) for setting in EVERY if setting.flag} <= flags


def test_the_schema_and_the_reference_name_every_setting():
    schema, table = json_schema(), reference()
    properties = schema["properties"]
    assert set(properties["server"]["properties"]) == set(settings_of(ServerSpec))
    entry = properties["models"]["items"]["anyOf"][1]["properties"]
    assert set(entry) == {"path", "namespace", *settings_of(ModelSpec)}
    assert "name" not in properties["defaults"]["properties"]
    for setting in EVERY:
        assert f"| `{setting.key}` |" in table


def test_settings_are_frozen():
    with pytest.raises(AttributeError):
        ServerSpec().port = 1
