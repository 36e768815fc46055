"""What comes in, as people write it: ``poisson:300``, ``bursty:300,4``, ``at-once:100`` or a CSV file of arrivals.

Reads text and files, hands on sources as the simulator takes them. Knows nothing of models but their names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inferd.errors import SpecError

__all__ = ["FORMS", "read_traces"]

FORMS = "poisson:RATE, bursty:RATE,CV, at-once:COUNT, or a .csv file with the columns time_s[,model[,rows[,tenant]]]"

Source = dict[str, Any]


def read_traces(
    traces: tuple[str, ...], known: list[str], duration_s: float | None, usual: str | None
) -> tuple[list[Source], float]:
    """The sources that ``traces`` describe, and until when requests come, in seconds.

    Args:
        traces: each ``[NAME=]FORM``.
        known: names of models and pipelines.
        duration_s: until when, where it is given; else a minute, or the length of the longest file.
        usual: whose requests they are where no name is given.

    Raises:
        SpecError: with every fault of all of them.
    """
    faults: list[str] = []
    sources: list[Source] = []
    longest_s = 0.0
    for trace in traces:
        name, form = _split(trace)
        try:
            if form.endswith(".csv"):
                found = _read_file(Path(form), _target(name, known) if name else usual, known)
                longest_s = max(longest_s, *(source["process"]["trace"]["requests"][-1][0] for source in found))
            else:
                process = _process(form)
                found = [{"target": _target(name or usual, known), "process": process}]
            sources += found
        except ValueError as fault:
            faults.append(f"--trace {trace}: {fault}")
    if faults:
        raise SpecError(faults)
    # A request that comes at the very end still comes.
    return sources, duration_s or (longest_s + 1e-9 if longest_s > 0 else 60.0)


def _split(trace: str) -> tuple[str | None, str]:
    name, equals, form = trace.partition("=")
    return (name, form) if equals else (None, trace)


def _target(name: str | None, known: list[str]) -> str:
    if name is None:
        raise ValueError(f"whose requests? write NAME=TRACE with a NAME of {', '.join(known)}")
    if name not in known:
        raise ValueError(f"'{name}' is not served; known are {', '.join(known)}")
    return name


def _process(form: str) -> dict[str, Any]:
    kind, _, text = form.partition(":")
    try:
        numbers = [float(number) for number in text.split(",")] if text else []
    except ValueError:
        raise ValueError(f"'{text}' is not a number; write {FORMS}") from None
    match kind, numbers:
        case "poisson", [rate] if rate > 0:
            return {"poisson": {"rate": rate}}
        case "bursty", [rate, cv] if rate > 0 and cv > 0:
            return {"gamma": {"rate": rate, "cv": cv}}
        case "at-once", [count] if count >= 1 and count == int(count):
            return {"at_once": {"count": int(count)}}
        case _:
            raise ValueError(f"not understood; write {FORMS}")


def _read_file(file: Path, target: str | None, known: list[str]) -> list[Source]:
    """The sources in a CSV file: one for each model that it names."""
    # Imported here: every command imports this module for its forms.
    import csv

    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = [(reader_line, row) for reader_line, row in enumerate(csv.reader(lines), 1) if any(row)]
    except OSError as fault:
        raise ValueError(f"{fault.strerror}: {file}") from None
    if rows and rows[0][1][0].strip() == "time_s":
        rows = rows[1:]
    if not rows:
        raise ValueError(f"{file} has no requests; write {FORMS}")
    requests: dict[str, list[tuple[float, int, int]]] = {}
    tenants: dict[str, int] = {"": 0}
    for line, row in rows:
        time_s, name, count, tenant = (*(cell.strip() for cell in row[:4]), *[""] * (4 - len(row)))
        try:
            if not 0 <= float(time_s) < float("inf") or int(count or 1) < 1:
                raise ValueError
            request = (float(time_s), int(count or 1), tenants.setdefault(tenant, len(tenants)))
        except ValueError:
            raise ValueError(f"{file}:{line}: time_s must be a number of seconds, rows a count of at least 1") from None
        if target is None and not name:
            raise ValueError(f"{file}:{line}: names no model; known are {', '.join(known)}")
        if name and name not in known:
            raise ValueError(f"{file}:{line}: '{name}' is not served; known are {', '.join(known)}")
        requests.setdefault(name or target or "", []).append(request)
    return [{"target": name, "process": {"trace": {"requests": sorted(of_one)}}} for name, of_one in requests.items()]
