"""A report of the simulator as a picture: latencies, batch sizes, how busy replicas are.

Reads a report, writes a file. Needs matplotlib, the extra ``inferd[plot]``; knows nothing of how the report came about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inferd.errors import InferdError

if TYPE_CHECKING:
    from pathlib import Path

try:
    from matplotlib.figure import Figure
except ImportError:
    raise InferdError("plots need matplotlib\nhelp: pip install 'inferd[plot]'") from None

__all__ = ["draw"]


def draw(report: dict[str, Any], file: Path) -> None:
    """Draw ``report`` into ``file``, whose ending says the format (png, svg, pdf).

    Raises:
        InferdError: it has no such ending, or can't be written.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    latency, sizes, busy = figure.subplots(1, 3, width_ratios=(2, 1.5, 1))
    for number, target in enumerate(report["targets"]):
        color = f"C{number}"
        times_ms = [1e3 * seconds for seconds, _ in target["distribution"]]
        name = f"{target['name']}, {100 * target['attainment']:.2f} % in time"
        latency.step(times_ms, [share for _, share in target["distribution"]], where="post", color=color, label=name)
        if target["objective_s"] is not None:
            latency.axvline(1e3 * target["objective_s"], color=color, linestyle=":", linewidth=1)
    latency.set(xlim=(0, _span_ms(report)), ylim=(0, 1.02))
    latency.set(xlabel="latency in ms (dotted: objective)", ylabel="share of the answered")
    latency.legend(fontsize="small", loc="lower right")
    for model in report["models"]:
        total = sum(rows * count for rows, count in model["rows"])
        shares = [rows * count / total for rows, count in model["rows"]]
        sizes.plot([rows for rows, _ in model["rows"]], shares, "o-", label=model["name"])
    sizes.set(xlabel="rows of the batch", ylabel="share of rows", ylim=(0, None))
    sizes.legend(fontsize="small")
    names = [f"{model['name']} × {model['replicas']}" for model in report["models"]]
    busy.barh(names, [100 * model["utilisation"] for model in report["models"]], height=0.4)
    busy.set(xlim=(0, 100), xlabel="time busy in %", ylim=(-0.6, len(names) - 0.4))
    for axes in (latency, sizes, busy):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    try:
        figure.savefig(file, dpi=150)
    except (OSError, ValueError) as fault:
        raise InferdError(f"{file}: {fault}\nhelp: name a file that ends in .png, .svg or .pdf") from None


def _span_ms(report: dict[str, Any]) -> float:
    """How far the axis of latencies goes: what one in a thousand takes, and every objective."""
    ends = [(target["objective_s"], target["latency"]["p999_s"]) for target in report["targets"]]
    return 1.05e3 * max((end for pair in ends for end in pair if end), default=1.0)
