"""Why a server does what it does, in words and numbers.

Reads what a running server says of itself, hands on text. Knows nothing of how it decides.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from inferd.cli.show import table
from inferd.errors import InferdError, NotFound
from inferd.spec.units import format_duration

__all__ = ["ask", "report"]

_TIMEOUT_S = 10.0

# Why requests were answered without being run, by the label that metrics and logs use.
_REFUSALS = {
    "queue_rows": "the queue had no room for their rows",
    "queue_bytes": "the queue had no room for their bytes",
    "predicted_late": "the backlog would have made them late",
    "timeout_too_short": "their timeout was shorter than the model takes",
    "timed_out": "their timeout passed while they waited",
}


def ask(url: str, model: str | None) -> dict[str, Any]:
    """What the server whose metrics are at ``url`` says of ``model``, or of all its models.

    Raises:
        NotFound: it has no such model.
        InferdError: nobody answers there.
    """
    path = "/explain" if model is None else f"/explain/{urllib.parse.quote(model, safe='')}"
    try:
        with urllib.request.urlopen(f"{url.rstrip('/').removesuffix('/metrics')}{path}", timeout=_TIMEOUT_S) as answer:  # noqa: S310
            told: dict[str, Any] = json.load(answer)
    except (urllib.error.URLError, TimeoutError, ValueError) as error:
        raise InferdError(
            f"no server answers at {url}: {error}\nhelp: name the address of its metrics with --url; "
            "'inferd serve' prints it"
        ) from None
    if model is not None and not told["models"]:
        known = ", ".join(one["name"] for one in ask(url, None)["models"]) or "nothing"
        raise NotFound(f"model '{model}' is not served there\nhelp: it serves {known}")
    return told


def report(told: dict[str, Any]) -> str:
    """A few paragraphs for each model."""
    return "\n\n".join(_model(model) for model in told["models"])


def _model(model: dict[str, Any]) -> str:
    why = model["explain"]
    replicas = ", ".join(f"{one['state']}" for one in model["replicas"])
    lines = [f"{model['name']} {model['version']}: {model['state']}, replicas: {replicas or 'none'}"]
    if not why:
        return lines[0]
    lines += ["", *_objective(why), *_batching(model, why), *_traffic(why)]
    if why["curve"]:
        lines += ["", "What a batch takes, as learned from its runs:", _curve(why["curve"])]
    return "\n".join(lines)


def _objective(why: dict[str, Any]) -> list[str]:
    rate = why["rate_rows_per_s"]
    objective = why["objective"]
    if objective is None:
        known = f" One replica sustains {rate:,.0f} rows/s at full batches." if rate else ""
        return [f"Objective: none, served as well as can be.{known}"]
    text = f"Objective: {objective['percentile']:g} % of the requests within {format_duration(objective['latency_s'])}."
    if objective["unreachable"]:
        return [f"{text} One row alone takes longer: it can't be met, and nothing is refused for it."]
    if rate:
        text += f" Within it one replica sustains {rate:,.0f} rows/s, in batches of {objective['batch_rows']}."
    missed = objective["missed"]
    return [text, f"Missed so far: {missed:,} of {why['arrivals']:,}."]


def _batching(model: dict[str, Any], why: dict[str, Any]) -> list[str]:
    batching = (model["signature"] or {}).get("batching", "on")
    if batching != "on":
        return [f"Batching: off, {batching['off']['reason']}."]
    text = f"Batching: up to {model['batch_rows_max']} rows."
    if why["recent_batches"]:
        count = sum(times for _, times in why["recent_batches"])
        mean = sum(rows * times for rows, times in why["recent_batches"]) / count
        sizes = ", ".join(f"{times} × {rows}" for rows, times in _commonest(why["recent_batches"]))
        text += f" The last {count} batches had {mean:.1f} rows on average (most often {sizes})."
    if why["returning_callers"] > 1:
        text += (
            f" About {why['returning_callers']:.0f} callers come back as soon as they have their answer; "
            "small batches wait for them a moment."
        )
    lines = [text]
    if why["overhead_s"]["batch"]:
        lines.append(f"Handing a batch over and back takes {why['overhead_s']['batch'] * 1e3:.3f} ms beside its run.")
    return lines


def _commonest(batches: list[list[int]]) -> list[list[int]]:
    return sorted(batches, key=lambda batch: -batch[1])[:3]


def _traffic(why: dict[str, Any]) -> list[str]:
    queue = why["queue"]
    lines = [
        f"Requests: {why['arrivals']:,} came; {queue['requests']:,} wait now, "
        f"{queue['handed_out']:,} are with replicas; {why['demoted']:,} were sent back behind those that could still "
        "be met."
    ]
    lines += [
        f"Refused: {count:,} because {_REFUSALS.get(reason, reason)} ({reason})."
        for reason, count in why["refusals"].items()
    ]
    return lines


def _curve(curve: list[dict[str, Any]]) -> str:
    rows = [("ROWS", "MEAN MS", "HIGH MS", "ROWS/S", "RUNS")]
    rows += [
        (
            str(point["rows"]),
            f"{point['mean_s'] * 1e3:.3f}",
            f"{point['high_s'] * 1e3:.3f}",
            f"{point['rows'] / point['mean_s']:,.0f}",
            f"{point['samples']:,}" if point["samples"] else "-",
        )
        for point in curve
    ]
    return table(rows)
