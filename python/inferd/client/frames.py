"""Convert user inputs to tensors: values by input name, data frames by column name.

Reads inputs in every form that :meth:`inferd.Client.infer` takes and the model's metadata, hands on tensors. Knows
nothing of positions where the model has column names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from inferd.client.tables import Table, is_column, is_row, row_of, table_of, table_of_dict, values_of
from inferd.client.tensors import Location, numbers_of, tensor_of
from inferd.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from inferd.client.metadata import ModelMetadata
    from inferd.client.tensors import Tensor
    from inferd.types import TensorSpec

__all__ = ["tensors_of"]

# Maximum number of names in a message.
_NAMES_MAX = 20


def tensors_of(inputs: Any, model: ModelMetadata) -> list[Tensor]:
    """Return the tensors to send for ``inputs``.

    Args:
        inputs: values by input name; for a model with one required input, its value; or a data frame, a series as one
            row, or a dict of columns.
        model: the model's metadata.

    Raises:
        InvalidInput: names, types or shapes don't match; the message says what would.
        ConfigNeeded: the model's configuration must be fetched first.
    """
    table = table_of(inputs)
    if table is not None:
        return _of_table(table, model)
    if isinstance(inputs, dict):
        if _are_columns(inputs, model):
            return _by_name(table_of_dict(inputs), model)
        return _by_input(inputs, model)
    if is_row(inputs) and (len(model.inputs) != 1 or len(model.inputs[0].shape) > 1):
        return _of_table(row_of(inputs), model)
    needed = model.inputs if len(model.inputs) == 1 else [s for s in model.inputs if not model.is_optional(s.name)]
    if len(needed) != 1:
        raise InvalidInput(f"the model has several inputs; pass a dict by name: {_described(model)}")
    return _by_input({needed[0].name: inputs}, model)


def _are_columns(inputs: dict[Any, Any], model: ModelMetadata) -> bool:
    """Whether the keys of a dict are column names rather than input names."""
    names = {spec.name for spec in model.inputs}
    if inputs.keys() & names and inputs.keys() - names:
        # Mixed keys: for a tabular model the others are unknown columns.
        return all(model.input_schema(name) is not None for name in names)
    if inputs.keys() <= names:
        # Same result either way; as a data frame, every missing column is reported.
        partial = inputs.keys() < names and any(map(is_column, inputs.values()))
        return partial and all(model.input_schema(name) is not None for name in names)
    return any(schema is not None and schema.columns for schema in map(model.input_schema, names))


def _by_input(inputs: dict[Any, Any], model: ModelMetadata) -> list[Tensor]:
    known = {spec.name: spec for spec in model.inputs}
    unknown = sorted(str(name) for name in inputs if name not in known)
    if unknown:
        raise InvalidInput(f"unknown input {_listed(unknown)}; the model has {_described(model)}")
    return [_input(value, known[name], model) for name, value in inputs.items()]


def _input(value: Any, spec: TensorSpec, model: ModelMetadata) -> Tensor:
    table = table_of(value)
    if table is not None:
        columns = _columns_of(spec, model)
        if columns:
            return _matrix(table, _order(table, columns, model), spec, model)
        return _by_position(table, spec, model)
    if is_column(value):
        return _column(value, spec, spec.name, model)
    return tensor_of(value, spec, Location(spec.name, _columns_of_known(spec, model)), model)


def _of_table(table: Table, model: ModelMetadata) -> list[Tensor]:
    if len(model.inputs) == 1:
        (spec,) = model.inputs
        schema = model.input_schema(spec.name)
        # A single input's name is a tensor name, unless the model is known to take a one-column table.
        named = schema is not None and (schema.columns or len(spec.shape) == 1)
        if not named and (_fits(table, spec) or spec.name not in table.names):
            return [_by_position(table, spec, model)]
    return _by_name(table, model)


def _by_name(table: Table, model: ModelMetadata) -> list[Tensor]:
    wanted: list[str] = []
    for spec in model.inputs:
        wanted += _columns_of(spec, model) or (spec.name,)
    order = dict(zip(wanted, _order(table, wanted, model), strict=True))
    tensors = []
    for spec in model.inputs:
        columns = _columns_of(spec, model)
        if columns:
            tensors.append(_matrix(table, [order[name] for name in columns], spec, model))
        elif order[spec.name] >= 0:
            tensors.append(_column(table.column(order[spec.name]), spec, spec.name, model))
    return tensors


def _columns_of(spec: TensorSpec, model: ModelMetadata) -> tuple[str, ...]:
    schema = model.input_schema(spec.name)
    return () if schema is None else schema.columns


def _columns_of_known(spec: TensorSpec, model: ModelMetadata) -> tuple[str, ...]:
    """Return the column names for messages, if known already."""
    schema = None if model.schemas is None else model.schemas.get(spec.name)
    return () if schema is None else schema.columns


def _order(table: Table, wanted: Sequence[str], model: ModelMetadata) -> list[int]:
    """Return the position of each wanted column; -1: an omitted optional input.

    Raises:
        InvalidInput: columns are missing, unexpected or duplicate.
    """
    if table.levels > 1:
        raise InvalidInput(
            f"column names have {table.levels} levels (a MultiIndex), the model's have one\n"
            'help: frame.columns = ["_".join(map(str, name)) for name in frame.columns], or the names that the model'
            " was fitted with"
        )
    places = {name: position for position, name in enumerate(table.names)}
    known = set(wanted)
    missing = [name for name in wanted if name not in places]
    if missing:
        whole = {spec.name for spec in model.inputs if not _columns_of(spec, model)}
        missing = [name for name in missing if not (name in whole and model.is_optional(name))]
    unexpected = [name for name in places if name not in known and not model.ignores(name)]
    if missing or unexpected:
        raise InvalidInput(
            f"the columns do not match the model: {_listed(missing) or 'none'} missing, {_listed(unexpected) or 'none'}"
            f" unexpected\nhelp: the model takes {_listed(wanted)}, in any order"
        )
    if len(places) < len(table.names):
        duplicate = sorted({name for name in known if table.names.count(name) > 1})
        if duplicate:
            raise InvalidInput(f"duplicate columns {_listed(duplicate)}\nhelp: keep one of each")
    return [places.get(name, -1) for name in wanted]


def _fits(table: Table, spec: TensorSpec) -> bool:
    width = len(table.names)
    return (len(spec.shape) == 2 and spec.shape[1] in (-1, width)) or (len(spec.shape) == 1 and width == 1)


def _by_position(table: Table, spec: TensorSpec, model: ModelMetadata) -> Tensor:
    if not _fits(table, spec):
        raise InvalidInput(
            f"{len(table.names)} columns for '{spec.name}', but the model takes {spec} without column names\n"
            "help: pass the columns that it was fitted with, in their order"
        )
    if len(spec.shape) == 1:
        return _column(table.column(0), spec, table.names[0], model)
    return _matrix(table, range(len(table.names)), spec, model)


def _matrix(table: Table, order: Sequence[int], spec: TensorSpec, model: ModelMetadata) -> Tensor:
    """Return columns of ``table`` in ``order`` as the input ``spec``, with the model's column names."""
    names = [table.names[position] for position in order]
    location = Location(spec.name, names)
    if table.matrix is not None:
        whole = table.matrix()
        ordered = whole if list(order) == list(range(whole.shape[1])) else whole[:, order]
        tensor = tensor_of(ordered, spec, location, model)
    else:
        columns = [_values(table.column(at), spec, Location(spec.name, column=table.names[at])) for at in order]
        lengths = {len(column) for column in columns}
        if len(lengths) > 1:
            raise InvalidInput(f"columns differ in length: {' and '.join(map(str, sorted(lengths)))} rows")
        tensor = tensor_of(np.stack(columns, axis=1) if columns else np.empty((0, 0)), spec, location, model)
    return tensor._replace(columns=_columns_of(spec, model))


def _values(column: Any, spec: TensorSpec, location: Location) -> np.ndarray:
    """Return one column in the datatype of ``spec``; text as objects."""
    values = values_of(column) if spec.datatype == "BYTES" else numbers_of(column, spec, location)
    if values.ndim != 1:
        raise location.error((), f"{values.ndim} dimensions, expected one value per row")
    return values.astype(object) if spec.datatype == "BYTES" else values


def _column(column: Any, spec: TensorSpec, name: str, model: ModelMetadata) -> Tensor:
    """Return one column, of a value or an array per row, as the input ``spec``."""
    values = values_of(column)
    if values.dtype.hasobject and values.size and all(isinstance(one, list | tuple | np.ndarray) for one in values):
        try:
            values = np.array(list(values))
        except ValueError:
            raise InvalidInput(f"column '{name}': rows are arrays of different shapes") from None
    if len(spec.shape) == 2 and values.ndim == 1 and spec.shape[1] in (-1, 1):
        values = values.reshape(-1, 1)
    elif len(spec.shape) == 1 and values.ndim == 2 and values.shape[1] == 1:
        values = values.reshape(-1)
    return tensor_of(values, spec, Location(spec.name, column=name), model)


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else ""
    return ", ".join(f"'{name}'" for name in names[:_NAMES_MAX]) + more


def _described(model: ModelMetadata) -> str:
    return ", ".join(map(str, model.inputs))
