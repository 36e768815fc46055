"""Instructions that scheduling one request costs, by how many wait: depth must cost next to nothing.

Reads the counts of callgrind, hands on a table; fails where a hundred times the depth costs half as much again.
Knows nothing of time: instructions are the same on a busy machine.

    python scheduler.py PROGRAM    (the example `instructions` of the crate inferd-scheduler, built for release)
"""

from __future__ import annotations

import re
import subprocess
import sys

KINDS = ("plain", "alone", "objective", "timeouts", "tenants", "mixed")
DEPTHS = (1_000, 100_000)
CYCLES = 300
RATIO_MAX = 1.5


def count(program: str, kind: str, depth: int, cycles: int) -> tuple[int, int]:
    """Instructions of a whole run, and the requests of its cycles."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, kind, str(depth), str(cycles)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    collected = re.search(r"Collected : (\d+)", run.stderr)
    if collected is None:
        raise SystemExit(f"callgrind gave no count: {run.stderr}\nhelp: install valgrind 3.20 or later")
    return int(collected[1]), int(run.stdout)


def per_request(program: str, kind: str, depth: int) -> float:
    """What is left of a run when one that fills the queue alone is taken off."""
    filled, _ = count(program, kind, depth, 0)
    ran, requests = count(program, kind, depth, CYCLES)
    return (ran - filled) / requests


def main() -> None:
    program = sys.argv[1]
    print(f"instructions per request{'':4}" + "".join(f"{depth:>10,} wait" for depth in DEPTHS) + "     ratio")
    worst = 0.0
    for kind in KINDS:
        shallow, deep = (per_request(program, kind, depth) for depth in DEPTHS)
        worst = max(worst, deep / shallow)
        print(f"{kind:<28}{shallow:>15,.0f}{deep:>15,.0f}{deep / shallow:>10.2f}", flush=True)
    if worst > RATIO_MAX:
        raise SystemExit(f"depth costs {worst:.2f} times, more than {RATIO_MAX}: something looks at all that waits")


if __name__ == "__main__":
    main()
