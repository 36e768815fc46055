"""The page about promises, from what was measured.

Reads the JSON that ``promise.py`` leaves for each model, writes ``promise.md`` and a picture for each. Measures
nothing.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

MODELS = {
    "score": "A fraud score: the model prepares 260 columns one by one, as exported pipelines of tabular data do, and "
    "scores them with a small network. One row takes 2 to 3 ms in thousands of small operators, and more rows hardly "
    "more: the server's overhead per request and its batch size decide.",
    "score-json": "The same model, called with JSON: 260 numbers as text. mosec's program parses them with "
    "msgspec, which is faster than mosec's default library.",
    "mlp": "A perceptron with 40 MB of weights, about 1.5 ms for one row. Its arithmetic is the bound: past 16 rows, "
    "each takes about 0.09 ms whatever the server does.",
}

# A generator that is later at its 99th percentile is charged to the server.
LATE_S = 0.002


def write(found: dict[str, dict[str, Any]], folder: Path) -> str:
    """The page, which is written into ``folder`` too, with a picture for each model in ``found``."""
    machine = next(iter(found.values()))["machine"]
    lines = [
        "# A latency promise, kept",
        "",
        f"`make bench-promise` on {machine['processor']}, {machine['date']}; one core for the server, one for the "
        "load. The objective: 99 % of the requests within 25 ms of their scheduled send time. Bursts: "
        "gamma-distributed gaps with a coefficient of variation of 4. inferd gets only the objective; of each peer the "
        "best of a search over its settings is shown. A compiled generator sends the load and reports its lateness; "
        "a run in which more than 1 % of the requests were sent 2 ms late is repeated once, and the less late one "
        "counts.",
    ]
    for name, one in found.items():
        lines += [
            "",
            f"## {name}",
            "",
            MODELS[name],
            "",
            f"![Answers in time against what is offered](promise-{name}.png)",
        ]
        lines += _best(one) + _twice(one) + _bound(one) + _past(one) + _foretold(one)
        _plot(one, folder / f"promise-{name}.png")
    text = "\n".join(lines) + "\n"
    (folder / "promise.md").write_text(text)
    return text


def _best(one: dict[str, Any]) -> list[str]:
    tuned = " and ".join(
        f"the best {final} of {count} settings of {peer}" for peer, (count, final) in one["tuned"].items()
    )
    lines = [
        "",
        "### The highest rate with 99 % in time",
        "",
        f"Medians of {one['rounds'][0]} rounds with different bursts, and {one['rounds'][1]} more around each server's "
        f"rate, {one['seconds']:g} s at each rate, all servers running and loaded in turn: inferd, and {tuned}, as "
        "found at three rates with two bursts each. Rates near the limit are 1/8 apart.",
        "",
        "|  | requests/s | inferd / it | met at that rate, round by round |",
        "|---|---:|---:|---|",
    ]
    ours = one["held"]["inferd"]
    for name, rate in one["held"].items():
        met = next((point["rounds"] for point in one["curves"][name] if point["rate"] == rate), [])
        ratio = f"{ours / rate:.2f}×" if rate else "–"
        lines.append(f"| {name} | {rate:,.0f} | {ratio} | {', '.join(f'{share:.1%}' for share in met)} |")
    return lines


def _twice(one: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "### At twice that rate",
        "",
        "Each server gets the rate of its peak, and directly before or after it twice the rate that it sustains: "
        f"{len(one['twice']['inferd']['peak'])} pairs with different bursts, medians.",
        "",
        "|  | its peak at | in time/s | twice | in time/s | of its peak | pair by pair |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for name, seen in one["twice"].items():
        shares = [double / max(peak, 1.0) for peak, double in zip(seen["peak"], seen["goodput"], strict=True)]
        lines.append(
            f"| {name} | {seen['peak_rate']:,.0f} | {statistics.median(seen['peak']):,.0f} | {seen['rate']:,.0f} "
            f"| {statistics.median(seen['goodput']):,.0f} | {statistics.median(shares):.0%} "
            f"| {', '.join(f'{share:.0%}' for share in shares)} |"
        )
    return lines


def _bound(one: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "### Upper bounds",
        "",
        "The same arrivals on a replica with the execution times that inferd measured and no overhead: the highest "
        "rate with all arrivals known in advance (no policy does better), of inferd's policy, and of a fixed maximum "
        "batch size with the best of three delays, first come, first served.",
        "",
        "| maximum rows | clairvoyant | inferd's policy | fixed batch and delay |",
        "|---:|---:|---:|---:|",
    ]
    for rows, rates in sorted(one["bound"]["rates"].items(), key=lambda item: int(item[0])):
        lines.append(f"| {rows} | {rates['clairvoyant']:,.0f} | {rates['ours']:,.0f} | {rates['fixed']:,.0f} |")
    return lines


def _past(one: dict[str, Any]) -> list[str]:
    lines = ["", "### At every rate", ""]
    if any(seen["late_s"] > LATE_S for curve in one["curves"].values() for seen in curve):
        lines += ["\\* The generator sent late: it causes part of the misses.", ""]
    lines += ["|  | offered/s | met | answers in time/s | of its peak | refused | p50 ms | p99 ms |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, curve in one["curves"].items():
        peak = max(seen["goodput"] for seen in curve)
        lines += [
            f"| {name} | {seen['rate']:,.0f}{_late(seen)} | {seen['attainment']:.1%} | {seen['goodput']:,.0f} "
            f"| {seen['goodput'] / peak:.0%} | {seen['refused']:.1%} "
            f"| {seen['p50_s'] * 1e3:.1f} | {seen['p99_s'] * 1e3:.1f} |"
            for seen in curve
        ]
    return lines


def _late(seen: dict[str, Any]) -> str:
    return r"\*" if seen["late_s"] > LATE_S else ""


def _foretold(one: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "### Simulated and measured",
        "",
        "`inferd simulate` of the same arrivals, with the running server's profile right after them; medians of "
        "several runs, in the last column of the ratios of each run.",
        "",
        "| load | requests/s | met | predicted | p50 ms | predicted | p99 ms | predicted | predicted / measured p99 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    return lines + [
        f"| {row['label']} | {row['rate']:,.0f} | {row['attainment']:.1%} | {row['foretold_attainment']:.1%} "
        f"| {row['p50_s'] * 1e3:.1f} | {row['foretold_p50_s'] * 1e3:.1f} "
        f"| {row['p99_s'] * 1e3:.1f} | {row['foretold_p99_s'] * 1e3:.1f} "
        f"| {statistics.median(row['p99_ratios']):.2f} ({', '.join(f'{one:.2f}' for one in row['p99_ratios'])}) |"
        for row in one["compared"]
    ]


def _plot(one: dict[str, Any], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name, curve in one["curves"].items():
        axes.plot([seen["rate"] for seen in curve], [seen["goodput"] for seen in curve], marker="o", label=name)
    limit = max(seen["rate"] for curve in one["curves"].values() for seen in curve)
    axes.plot([0, limit], [0, limit], color="0.7", linewidth=1, zorder=0, label="offered")
    axes.set_xlabel("requests offered a second, in bursts (CV 4)")
    axes.set_ylabel(f"answers within {one['objective_s'] * 1e3:g} ms, a second")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)
    plt.close(figure)
