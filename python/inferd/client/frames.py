"""What is sent for what users give: values by input, data frames by the names of their columns.

Reads inputs in every form that :meth:`inferd.Client.infer` takes and what the model takes, hands on tensors.
A column goes where its name says, wherever the model has names; never by its position then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from inferd.client.tables import Table, is_column, is_row, row_of, table_of, table_of_dict, values_of
from inferd.client.tensors import Place, numbers_of, tensor_of
from inferd.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from inferd.client.sides import Sides
    from inferd.client.tensors import Tensor
    from inferd.types import TensorSpec

__all__ = ["tensors_of"]

# Names in a message: enough to see which, not a page of them.
_NAMES_MAX = 20


def tensors_of(inputs: Any, sides: Sides) -> list[Tensor]:
    """What is sent for ``inputs``.

    Args:
        inputs: values by input; or of a model that needs one input, its value; or a data frame, a series that is one
            row, or a dict of columns.
        sides: what the model takes.

    Raises:
        InvalidInput: names, types or shapes don't fit, with what would.
        ConfigNeeded: what the model takes is not known well enough.
    """
    table = table_of(inputs)
    if table is not None:
        return _of_table(table, sides)
    if isinstance(inputs, dict):
        if _are_columns(inputs, sides):
            return _by_name(table_of_dict(inputs), sides)
        return _by_input(inputs, sides)
    if is_row(inputs) and (len(sides.inputs) != 1 or len(sides.inputs[0].shape) > 1):
        return _of_table(row_of(inputs), sides)
    needed = sides.inputs if len(sides.inputs) == 1 else [s for s in sides.inputs if not sides.is_optional(s.name)]
    if len(needed) != 1:
        raise InvalidInput(f"the model takes several inputs; give a dict by name: {_described(sides)}")
    return _by_input({needed[0].name: inputs}, sides)


def _are_columns(inputs: dict[Any, Any], sides: Sides) -> bool:
    """Whether the keys of a dict are names of columns, rather than of inputs."""
    names = {spec.name for spec in sides.inputs}
    if inputs.keys() & names and inputs.keys() - names:
        # Some are inputs. Of a model of tables the others are columns that it has not.
        return all(sides.schema_of(name) is not None for name in names)
    if inputs.keys() <= names:
        # By input, in either case. Of a data frame's columns all that are missing are named here.
        partial = inputs.keys() < names and any(map(is_column, inputs.values()))
        return partial and all(sides.schema_of(name) is not None for name in names)
    return any(schema is not None and schema.columns for schema in map(sides.schema_of, names))


def _by_input(inputs: dict[Any, Any], sides: Sides) -> list[Tensor]:
    known = {spec.name: spec for spec in sides.inputs}
    strangers = sorted(str(name) for name in inputs if name not in known)
    if strangers:
        raise InvalidInput(f"the model has no input {_listed(strangers)}; it takes {_described(sides)}")
    return [_input(value, known[name], sides) for name, value in inputs.items()]


def _input(value: Any, spec: TensorSpec, sides: Sides) -> Tensor:
    table = table_of(value)
    if table is not None:
        columns = _columns_of(spec, sides)
        if columns:
            return _matrix(table, _order(table, columns, sides), spec, sides)
        return _by_position(table, spec, sides)
    if is_column(value):
        return _column(value, spec, spec.name, sides)
    return tensor_of(value, spec, Place(spec.name, _columns_of_known(spec, sides)), sides)


def _of_table(table: Table, sides: Sides) -> list[Tensor]:
    if len(sides.inputs) == 1:
        (spec,) = sides.inputs
        schema = sides.schema_of(spec.name)
        # The name of a lone input is that of a tensor, unless the model is known to take a table of one column.
        named = schema is not None and (schema.columns or len(spec.shape) == 1)
        if not named and (_fits(table, spec) or spec.name not in table.names):
            return [_by_position(table, spec, sides)]
    return _by_name(table, sides)


def _by_name(table: Table, sides: Sides) -> list[Tensor]:
    wanted: list[str] = []
    for spec in sides.inputs:
        wanted += _columns_of(spec, sides) or (spec.name,)
    order = dict(zip(wanted, _order(table, wanted, sides), strict=True))
    tensors = []
    for spec in sides.inputs:
        columns = _columns_of(spec, sides)
        if columns:
            tensors.append(_matrix(table, [order[name] for name in columns], spec, sides))
        elif order[spec.name] >= 0:
            tensors.append(_column(table.column(order[spec.name]), spec, spec.name, sides))
    return tensors


def _columns_of(spec: TensorSpec, sides: Sides) -> tuple[str, ...]:
    schema = sides.schema_of(spec.name)
    return () if schema is None else schema.columns


def _columns_of_known(spec: TensorSpec, sides: Sides) -> tuple[str, ...]:
    """For messages alone: nothing is asked for their sake."""
    schema = None if sides.schemas is None else sides.schemas.get(spec.name)
    return () if schema is None else schema.columns


def _order(table: Table, wanted: Sequence[str], sides: Sides) -> list[int]:
    """Where each wanted column is; -1: it is an input that may be left out.

    Raises:
        InvalidInput: columns are missing, foreign, or there twice.
    """
    if table.levels > 1:
        raise InvalidInput(
            f"the columns have names of {table.levels} levels (a MultiIndex), the model's have one\n"
            'help: frame.columns = ["_".join(map(str, name)) for name in frame.columns], or as they were when the'
            " model was fitted"
        )
    places = {name: position for position, name in enumerate(table.names)}
    known = set(wanted)
    absent = [name for name in wanted if name not in places]
    if absent:
        whole = {spec.name for spec in sides.inputs if not _columns_of(spec, sides)}
        absent = [name for name in absent if not (name in whole and sides.is_optional(name))]
    foreign = [name for name in places if name not in known and not sides.ignores(name)]
    if absent or foreign:
        raise InvalidInput(
            f"the columns are not those of the model: {_listed(absent) or 'none'} missing, {_listed(foreign) or 'none'}"
            f" foreign\nhelp: the model takes {_listed(wanted)}, in any order"
        )
    if len(places) < len(table.names):
        twice = sorted({name for name in known if table.names.count(name) > 1})
        if twice:
            raise InvalidInput(f"columns {_listed(twice)} are there more than once\nhelp: leave one of each")
    return [places.get(name, -1) for name in wanted]


def _fits(table: Table, spec: TensorSpec) -> bool:
    width = len(table.names)
    return (len(spec.shape) == 2 and spec.shape[1] in (-1, width)) or (len(spec.shape) == 1 and width == 1)


def _by_position(table: Table, spec: TensorSpec, sides: Sides) -> Tensor:
    if not _fits(table, spec):
        raise InvalidInput(
            f"{len(table.names)} columns were given for '{spec.name}', but the model takes {spec}, whose columns have"
            f" no names\nhelp: give those that it was fitted with, in their order"
        )
    if len(spec.shape) == 1:
        return _column(table.column(0), spec, table.names[0], sides)
    return _matrix(table, range(len(table.names)), spec, sides)


def _matrix(table: Table, order: Sequence[int], spec: TensorSpec, sides: Sides) -> Tensor:
    """Columns of ``table`` in ``order`` as the input ``spec``, with their names where the model has such."""
    names = [table.names[position] for position in order]
    place = Place(spec.name, names)
    if table.matrix is not None:
        whole = table.matrix()
        tensor = tensor_of(whole if list(order) == list(range(whole.shape[1])) else whole[:, order], spec, place, sides)
    else:
        columns = [_values(table.column(at), spec, Place(spec.name, column=table.names[at])) for at in order]
        lengths = {len(column) for column in columns}
        if len(lengths) > 1:
            raise InvalidInput(f"the columns have {' and '.join(map(str, sorted(lengths)))} rows")
        tensor = tensor_of(np.stack(columns, axis=1) if columns else np.empty((0, 0)), spec, place, sides)
    return tensor._replace(columns=_columns_of(spec, sides))


def _values(column: Any, spec: TensorSpec, place: Place) -> np.ndarray:
    """One column in the type of ``spec``; text as objects."""
    values = values_of(column) if spec.datatype == "BYTES" else numbers_of(column, spec, place)
    if values.ndim != 1:
        raise place.fault((), f"it has {values.ndim} dimensions, not one value for each row")
    return values.astype(object) if spec.datatype == "BYTES" else values


def _column(column: Any, spec: TensorSpec, name: str, sides: Sides) -> Tensor:
    """One column as the input ``spec``: a value, or an array, for each row."""
    values = values_of(column)
    if values.dtype.hasobject and values.size and all(isinstance(one, list | tuple | np.ndarray) for one in values):
        try:
            values = np.array(list(values))
        except ValueError:
            raise InvalidInput(f"column '{name}': its rows are arrays of different shapes") from None
    if len(spec.shape) == 2 and values.ndim == 1 and spec.shape[1] in (-1, 1):
        values = values.reshape(-1, 1)
    elif len(spec.shape) == 1 and values.ndim == 2 and values.shape[1] == 1:
        values = values.reshape(-1)
    return tensor_of(values, spec, Place(spec.name, column=name), sides)


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else ""
    return ", ".join(f"'{name}'" for name in names[:_NAMES_MAX]) + more


def _described(sides: Sides) -> str:
    return ", ".join(map(str, sides.inputs))
