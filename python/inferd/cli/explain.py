"""Why a server does what it does, in words and numbers.

Reads what a running server says of itself, hands on text. Knows nothing of how it decides.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from textwrap import fill, indent
from typing import Any

from inferd.cli.show import table
from inferd.errors import InferdError, NotFound
from inferd.spec.units import format_duration, format_size

__all__ = ["ask", "report"]

_TIMEOUT_S = 10.0
_WIDTH = 100
_INDENT = " " * 11
# Fewer runs say nothing of whether the machine is slow at the moment, and less than this is not worth a sentence.
_RATIOS_MIN = 64
_NOTABLE = 1.25
# Shorter pauses are what handing over costs.
_PAUSE_MIN_S = 2e-4

# Why requests were answered without being run, by the label that metrics and logs use.
_REFUSALS = {
    "queue_rows": "the queue had no room for their rows",
    "queue_bytes": "the queue had no room for their bytes",
    "predicted_late": "the backlog would have made them late",
    "timeout_too_short": "their timeout was shorter than the model takes",
    "timed_out": "their timeout passed while they waited",
    "waited_too_long": "they could no longer meet the objective and waited late_wait_objectives times as long",
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
    return "\n\n\n".join(_model(model) for model in told["models"])


def _model(model: dict[str, Any]) -> str:
    why = model["explain"]
    if not why:
        what = "a pipeline, whose steps' models decide" if model["platform"] == "ensemble" else "nothing is known yet"
        return f"{model['name']} {model['version']} is {model['state']}: {what}."
    states = Counter(one["state"] for one in model["replicas"])
    replicas = ", ".join(f"{count} {state}" for state, count in states.items()) or "none"
    batched = (model["signature"] or {}).get("batching", "on") == "on"
    sections = [
        ("Objective", _objective(why, batched=batched)),
        ("Batching", _batching(model, why)),
        ("Requests", _requests(model, why)),
    ]
    if model.get("cache"):
        sections.append(("Cache", _cache(model["cache"])))
    if model.get("sequences"):
        sections.append(("Sequences", _sequences(model["sequences"])))
    if why["curve"]:
        sections.append(("Latency", _spread(why)))
    lines = [f"{model['name']} {model['version']} is {model['state']}; replicas: {replicas}."]
    if model["facts"]:
        sections.insert(0, ("Runtime", _runtime(model["facts"])))
    for title, sentences in sections:
        lines += ["", _paragraph(title, " ".join(sentences))]
    if why["curve"]:
        buckets = [bucket for bucket in why.get("buckets", ()) if bucket["curve"]]
        curves = [(f"rows of size {_range(one['size'])}", _measured(one["curve"])) for one in buckets]
        for name, curve in curves if len(curves) > 1 else [("", why["curve"])]:
            lines += ["", *([f"{_INDENT}{name}"] if name else []), indent(_curve(curve, why), _INDENT)]
    return "\n".join(lines)


def _sequences(told: dict[str, Any]) -> list[str]:
    keeper = {
        "server": "Their state is kept here and outlives workers.",
        "model": "The model remembers by itself, and loses them with its worker.",
    }
    idle = format_duration(told["idle_max_s"])
    return [
        f"{told['live']:,} of at most {told['sequences_max']:,}, forgotten after {idle} without a request.",
        keeper[told["kept_by"]],
        f"{told['waiting']:,} requests wait for the one before them." if told["waiting"] else "",
    ]


def _paragraph(title: str, text: str) -> str:
    return fill(text, _WIDTH, initial_indent=f"{title:<{len(_INDENT)}}", subsequent_indent=_INDENT)


def _runtime(facts: dict[str, str]) -> list[str]:
    sentences = [f"{facts['runtime']}."] if "runtime" in facts else []
    if "faster" in facts:
        chosen, _, why = facts["faster"].partition("no: ")
        sentences.append(f"Served from ONNX, {chosen}." if chosen else f"Not served from ONNX: {why}.")
    if "left_out" in facts:
        sentences.append(f"Clients don't see {facts['left_out']}.")
    if "note" in facts:
        sentences.append(f"Of what clients send, {facts['note']}.")
    return sentences


def _objective(why: dict[str, Any], *, batched: bool) -> list[str]:
    rate = why["rate_rows_per_s"]
    objective = why["objective"]
    unit = "rows" if batched else "requests"
    if objective is None:
        known = f"One replica sustains {rate:,.0f} {unit}/s{' at full batches' if batched else ''}." if rate else ""
        return ["None: requests are served as well as can be, none is refused for being late.", known]
    text = f"{objective['percentile']:g} % of the requests within {format_duration(objective['latency_s'])}."
    if objective["unreachable"]:
        return [text, "One row alone takes longer: it can't be met, and nothing is refused for it."]
    if not rate:
        return [text, "What a batch takes is not known yet."]
    batches = f", in batches of up to {objective['batch_rows']}" if batched else ""
    return [text, f"Within it one replica sustains {rate:,.0f} {unit}/s{batches}."]


def _batching(model: dict[str, Any], why: dict[str, Any]) -> list[str]:
    batching = (model["signature"] or {}).get("batching", "on")
    if batching != "on":
        return [f"Off: {batching['off']['reason']}."]
    sentences = _company(why.get("batching"), model["batch_rows_max"])
    recent = why["recent_batches"]
    if recent:
        count = sum(times for _, times in recent)
        mean = sum(rows * times for rows, times in recent) / count
        sizes = ", ".join(f"{rows} ({times / count:.0%})" for rows, times in _commonest(recent))
        sentences.append(f"The last {count} batches had {mean:.1f} rows on average, most often {sizes}.")
    if why["returning_callers"] > 1:
        sentences.append(
            f"About {why['returning_callers']:.0f} callers come back as soon as they have their answer, and small "
            f"batches wait for them a moment: {why['lingers']:,} did so far."
        )
    if why["overhead_s"]["batch"]:
        sentences.append(f"Handing a batch over and back takes {_ms(why['overhead_s']['batch'])} ms beside its run.")
    if why["overhead_s"].get("request"):
        sentences.append(f"A request keeps the gateway for {_ms(why['overhead_s']['request'])} ms.")
    pause = dict(why["overhead_s"].get("pauses", [])).get(0.5, 0.0)
    if pause >= _PAUSE_MIN_S:
        sentences.append(
            f"Between two batches a replica pauses for {_ms(pause)} ms: where it shares a core with the gateway, that "
            "works then."
        )
    return sentences


_DECIDED = {
    "setting": "The settings say so.",
    "analysis": "It is proven: {}.",
    "probe": "A probe at load decided: {}.",
    "traffic": "Rows that came decided: {}.",
}


def _company(told: dict[str, Any] | None, rows_max: int) -> list[str]:
    """Whether requests share runs now, who decided, and what comparing rows that came has shown."""
    if told is None:
        return [f"On, up to {rows_max} rows."]
    if told["rows_wanted"] is not None:
        sentences = [f"One request at a time: {told['rows']:,} of {told['rows_wanted']:,} rows are compared yet."]
    else:
        sentences = [f"On, up to {rows_max} rows." if told["shared"] else "Off until the next load."]
        if told["by"] is not None:
            sentences.append(_DECIDED[told["by"]].format(told["why"]))
    if told["bound"] is not None:
        audited = "; more are compared as long as it is served" if told["audited"] else ""
        sentences.append(
            f"Of {told['rows']:,} rows that came and were run alone and in company none differed: at most"
            f" {told['bound']:.2%} do, with 95 % confidence{audited}."
        )
    elif told["differing"]:
        sentences.append(f"Of {told['rows']:,} rows that came and were compared {told['differing']:,} differed.")
    elif told["audited"]:
        sentences.append("Rows that come are compared alone and in company, in idle moments; none was yet.")
    if told["undecided"]:
        sentences.append(f"{told['undecided']:,} could not be compared: their answers differ from run to run.")
    return sentences


def _commonest(batches: list[list[int]]) -> list[list[int]]:
    return sorted(batches, key=lambda batch: -batch[1])[:3]


def _requests(model: dict[str, Any], why: dict[str, Any]) -> list[str]:
    came, queue, refusals = why["arrivals"], why["queue"], why["refusals"]
    if not came:
        return ["None came yet."]
    sentences = [f"{came:,} came; {queue['requests']:,} wait now and {queue['handed_out']:,} are with replicas."]
    if why["objective"]:
        sentences.append(f"{_of(why['objective']['missed'], came)} were answered later than the objective.")
    if why["demoted"]:
        sentences.append(f"{_of(why['demoted'], came)} could no longer meet it and went behind those that could.")
    for reason, count in sorted(refusals.items(), key=lambda refusal: -refusal[1]):
        sentences.append(f"{_of(count, came)} were refused because {_REFUSALS.get(reason, reason)} ({reason}).")
    if not refusals:
        sentences.append("None was refused.")
    if why["replicas_ejected"]:
        out = why["replicas_ejected"]
        sentences.append(
            f"{out} of {why['replicas_ready']} replicas {'is' if out == 1 else 'are'} left out for a while: failing, "
            "or far slower than the others."
        )
    elif why["ejections"]:
        sentences.append(f"A replica was left out for a while {why['ejections']:,} times.")
    if why["hedges"]:
        sentences.append(f"{why['hedges']:,} batches took long and were run once more elsewhere.")
    failed = model["answered"]["error"] - sum(refusals.values())
    if failed > 0:
        sentences.append(f"{failed:,} ended in another error; the server's log has each.")
    return sentences


def _cache(cache: dict[str, Any]) -> list[str]:
    used = cache["bytes"] / cache["max_bytes"]
    sentences = [f"{cache['entries']:,} answers take {used:.0%} of {format_size(cache['max_bytes'])}."]
    asked = cache["hits"] + cache["misses"]
    if asked:
        sentences.append(f"Of {asked:,} requests {_of(cache['hits'], asked)} were answered without a run of their own.")
    return sentences


def _of(count: int, all_: int) -> str:
    return f"{count:,} ({count / all_:.1%})"


def _spread(why: dict[str, Any]) -> list[str]:
    spread: dict[float, float] = dict(why["spread"])
    sentences = ["What a batch takes, as learned from its runs."]
    if len(why.get("buckets", ())) > 1:
        sentences.append("Learned for each size: the length of inputs that are padded, else the bytes of a row.")
    if 0.5 in spread and 0.99 in spread:
        sentences.append(
            f"Half of the runs take at most {spread[0.5]:.2f} times the mean, 99 % at most {spread[0.99]:.2f} times."
        )
    ratios: list[float] = why.get("recent_ratios", [])
    if len(ratios) >= _RATIOS_MIN:
        now = len(ratios) / sum(ratios)
        if not 1 / _NOTABLE < now < _NOTABLE:
            sentences.append(
                f"The machine is {'slow' if now > 1 else 'fast'} at the moment: runs take {now:.2f} times what they "
                f"took on average over the last {len(ratios):,}. The curve is as it is now."
            )
    return sentences


def _range(size: int) -> str:
    """A bucket of sizes: from past half of its end to its end."""
    least, most = 2 ** (size - 1) + 1 if size else 1, 2**size
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"


def _measured(curve: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points that were run; all where none was."""
    return [point for point in curve if point["samples"]] or curve


def _curve(curve: list[dict[str, Any]], why: dict[str, Any]) -> str:
    percentile = why["objective"]["percentile"] if why["objective"] else 99
    rows = [("ROWS", "MEAN MS", f"P{percentile:g} MS", "ROWS/S", "RUNS")]
    rows += [
        (
            str(point["rows"]),
            _ms(point["mean_s"]),
            _ms(point["high_s"]),
            f"{point['rows'] / point['mean_s']:,.0f}",
            f"{point['samples']:,}" if point["samples"] else "-",
        )
        for point in curve
    ]
    return table(rows)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}"
