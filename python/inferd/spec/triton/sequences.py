"""Translate ``sequence_batching`` of a ``config.pbtxt`` into the setting ``sequence`` and its hidden tensors.

Reads the file's values, hands on the equivalent of ``model.yaml``. Knows nothing of how sequences are served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inferd.types import TensorSpec

if TYPE_CHECKING:
    from inferd.spec.triton.text import Config

__all__ = ["hidden_tensors", "read_sequence"]

_KINDS = {
    "CONTROL_SEQUENCE_START": "start",
    "CONTROL_SEQUENCE_END": "end",
    "CONTROL_SEQUENCE_READY": "ready",
    "CONTROL_SEQUENCE_CORRID": "id",
}
_FORMS = {"int32_false_true": "INT32", "fp32_false_true": "FP32", "bool_false_true": "BOOL"}
# Triton's defaults.
_ID = "UINT64"
_IDLE_US = 1_000_000


def read_sequence(config: Config, faults: list[str]) -> dict[str, Any] | None:
    """Return the setting ``sequence`` as YAML would have it; None if the file has no sequences.

    Args:
        config: the file's content.
        faults: list that receives unsupported fields.
    """
    batching = config.values.get("sequence_batching")
    if batching is None:
        return None
    setting: dict[str, Any] = {"idle_max": f"{batching['max_sequence_idle_microseconds'] or _IDLE_US}us"}
    for position, control_input in enumerate(batching["control_input"]):
        place = config.source.at(("sequence_batching", "control_input", position))
        for control in control_input["control"]:
            form = next((form for form in _FORMS if control[form]), None)
            if form is not None and [float(value) for value in control[form]] != [0.0, 1.0]:
                faults.append(
                    f"{place}: control '{control_input['name']}': values {control[form]} are not supported, only 0 and"
                    f" 1\nhelp: write {form}: [ 0, 1 ], and convert the values inside the model"
                )
            setting[_KINDS[control["kind"]]] = control_input["name"]
    states = {}
    for position, state in enumerate(batching["state"]):
        place = config.source.at(("sequence_batching", "state", position))
        initial = state["initial_state"]
        if any(one.get("data_file") for one in initial):
            faults.append(
                f"{place}: initial state of '{state['input_name']}': data_file is not supported, only zeros\n"
                "help: have the model replace zeros by the file's content at the start of a sequence"
            )
        states[state["input_name"]] = {"output": state["output_name"], "shape": _first_shape(config.values, state)}
    if states:
        setting["state"] = states
    return setting


def _first_shape(values: dict[str, Any], state: dict[str, Any]) -> list[int] | None:
    """Return the shape of a sequence's initial state; it fills in dynamic dimensions."""
    dims = state["initial_state"][0]["dims"] if state["initial_state"] else state["dims"]
    # As in Triton, a dynamic dimension is 1.
    dims = [1 if dim < 0 else dim for dim in dims]
    return [1, *dims] if values["max_batch_size"] > 0 else dims


def hidden_tensors(values: dict[str, Any]) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Return the inputs and outputs that a model has for sequences, which clients don't see."""
    batching = values.get("sequence_batching")
    if batching is None:
        return [], []
    batch = (-1,) if values["max_batch_size"] > 0 else ()
    inputs = [TensorSpec(one["name"], _control_type(one["control"]), (*batch, 1)) for one in batching["control_input"]]
    outputs = []
    for state in batching["state"]:
        datatype = state["data_type"].removeprefix("TYPE_").replace("STRING", "BYTES")
        inputs.append(TensorSpec(state["input_name"], datatype, (*batch, *state["dims"])))
        outputs.append(TensorSpec(state["output_name"], datatype, (*batch, *state["dims"])))
    return inputs, outputs


def _control_type(controls: list[dict[str, Any]]) -> str:
    for control in controls:
        for form, datatype in _FORMS.items():
            if control[form]:
                return datatype
        if control["data_type"] != "TYPE_INVALID":
            return str(control["data_type"]).removeprefix("TYPE_").replace("STRING", "BYTES")
    return _ID
