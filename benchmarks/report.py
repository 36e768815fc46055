"""The outcome as a Markdown page and as JSON.

Reads `Result`s, hands on text. Knows nothing of how they were measured.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench import Result, Samples, Target

# Metric → heading, and how many digits are worth reading.
COLUMNS = {
    "rate": ("answers/s", 0),
    "cpu_us": ("CPU µs/answer", 1),
    "p50_ms": ("p50 ms", 3),
    "p99_ms": ("p99 ms", 3),
    "pss_mib": ("PSS MiB", 1),
    "seconds_to_answer": ("seconds", 3),
}
NAMES = {
    "triton": "Triton (Python backend)",
    "triton binary": "Triton (Python backend), binary",
    "nginx": "nginx `return 200`",
}


def markdown(results: list[Result], machine: dict[str, str], versions: dict[str, str], how: str) -> str:
    """The whole page."""
    parts = [
        "# Benchmarks",
        "",
        f"{machine['date']}, {machine['cores']} cores of {machine['processor']}, {machine['memory']}, "
        f"Linux {machine['kernel']}. Made by `make bench`. {how}",
        "",
        "Each server has one core for all its processes, the load generator another. Repeats of all arms are "
        "interleaved; figures are medians. *CPU* is user and system time of all processes of the server per response: "
        "steadier than throughput on a busy machine. Before load, each server's outputs were compared with ONNX "
        "Runtime's. Triton is the server binary that `nvidia-pytriton` bundles, with its *Python backend* and a "
        "batching delay of 0; a native backend would be faster.",
        "",
        "Compared: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        "",
        "## Targets",
        "",
        "| scenario | what | measured | target | |",
        "|---|---|---:|---:|---|",
    ]
    parts += [target_line(result, target) for result in results for target in result.targets]
    for result in results:
        parts += ["", f"## {result.title}", "", *table(result.samples)]
        parts += [f"\n{note}." for note in result.notes]
    return "\n".join(parts) + "\n"


def target_line(result: Result, target: Target) -> str:
    sign = "≥" if target.at_least else "≤"
    # 'missed' is spelt out: a mark alone is easily overlooked.
    verdict = "met" if target.met else "**missed**"
    measured = f"{target.measured:.3g}{target.unit}"
    return f"| {result.title} | {target.text} | {measured} | {sign} {target.limit:g}{target.unit} | {verdict} |"


def table(samples: list[Samples]) -> list[str]:
    metrics = [metric for metric in COLUMNS if any(metric in one.values for one in samples)]
    head = ["", *(COLUMNS[metric][0] for metric in metrics), "repeats"]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(metrics) + 1)]
    for one in samples:
        cells = [cell(one, metric) for metric in metrics]
        count = max(len(values) for values in one.values.values())
        repeats = f"{count} ({one.noisy} disturbed)" if one.noisy else str(count)
        lines.append(f"| {NAMES.get(one.arm, one.arm)} | {' | '.join(cells)} | {repeats} |")
    return lines


def cell(samples: Samples, metric: str) -> str:
    if metric not in samples.values:
        return ""
    return f"{samples.median(metric):,.{COLUMNS[metric][1]}f}"


def as_json(results: list[Result], machine: dict[str, str], versions: dict[str, str]) -> str:
    """Return every sample as JSON."""
    data = [{**asdict(result), "targets": [{**asdict(t), "met": t.met} for t in result.targets]} for result in results]
    return json.dumps({"machine": machine, "versions": versions, "results": data}, indent=1)
