"""Measures inferd beside its peers and writes one page.

    python benchmarks/run.py [--quick] [--only NAME …] [--output docs/benchmarks.md]

Reads the command line, hands on a Markdown table and JSON. Knows no server and no scenario by itself.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import environment
import life
import report
import scenarios
from bench import Bench, Result, pin_harness

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SCENARIOS: dict[str, Callable[[Bench], Result]] = {
    "tiny_http": scenarios.tiny_http,
    "tiny_grpc": scenarios.tiny_grpc,
    "tiny_one": scenarios.tiny_one,
    "logistic": scenarios.logistic,
    "mlp_64": scenarios.mlp_64,
    "mlp_8": scenarios.mlp_8,
    "mlp_1": scenarios.mlp_1,
    "open_loop": scenarios.open_loop,
    "batching": scenarios.batching,
    "replicas": scenarios.replicas,
    "hooks_64": scenarios.hooks_64,
    "hooks_1": scenarios.hooks_1,
    "sentences": scenarios.sentences,
    "memory": life.memory,
    "start": life.start,
    "recovery": life.recovery,
    "soak": life.soak,
}
# Ten minutes each: never in a quick run.
LONG = {"soak"}


def main() -> int:
    options = read_options()
    try:
        env = environment.prepare(options.inferd_python)
    except environment.MissingTools as missing:
        print(f"error: {missing}", file=sys.stderr)
        return 2
    make_models(env, options.models)
    pin_harness(options.load_core)
    names = options.only or [name for name in SCENARIOS if not (options.quick and name in LONG)]
    results, failed = [], []
    with tempfile.TemporaryDirectory(prefix="inferd-bench-") as folder:
        bench = Bench(
            environment=env,
            models=options.models,
            folder=Path(folder),
            server_core=options.server_core,
            load_core=options.load_core,
            repeats=options.repeats or (3 if options.quick else 7),
            seconds=options.seconds or (2 if options.quick else 5),
            quick=options.quick,
        )
        for name in names:
            print(f"{name}: {(SCENARIOS[name].__doc__ or '').strip()}", file=sys.stderr, flush=True)
            try:
                results.append(SCENARIOS[name](bench))
            except Exception:  # noqa: BLE001 - one scenario that fails must not cost the others
                traceback.print_exc()
                failed.append(name)
    how = f"{bench.repeats} repeats of {bench.seconds:g} s each."
    machine, versions = environment.machine(), environment.versions(env)
    page = report.markdown(results, machine, versions, how)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(report.as_json(results, machine, versions))
    print(page)
    if failed:
        print(f"these scenarios failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def make_models(env: environment.Environment, folder: Path) -> None:
    """The models, unless they are there."""
    if all((folder / f"{name}.onnx").exists() for name in (scenarios.TINY, scenarios.LOGISTIC, scenarios.MLP, "score")):
        return
    script = ROOT / "benchmarks" / "make_models.py"
    subprocess.run([str(env.python), str(script), str(folder)], check=True)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="inferd beside its peers: one command, one page")
    parser.add_argument("--quick", action="store_true", help="few short repeats, nothing that takes ten minutes")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, metavar="NAME", help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--output", type=Path, default=RESULTS / "benchmarks.md", help="the Markdown page")
    parser.add_argument("--json", type=Path, default=RESULTS / "benchmarks.json", help="every sample")
    parser.add_argument("--models", type=Path, default=RESULTS / "models", help="where tiny.onnx and mlp.onnx are")
    parser.add_argument("--inferd-python", type=Path, default=Path(sys.executable), help="an interpreter with inferd")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--seconds", type=float)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
