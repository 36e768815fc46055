"""``inferd serve``, ``check``, ``explain``, ``simulate``, ``new``, ``settings``.

Reads arguments, drives the control plane, prints. Exit status: 0 done, 1 failed, 2 wrong usage or specification.
Knows nothing of how models are found, resolved or run.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inferd.cli import show
from inferd.cli.flags import given_by, setting_flags
from inferd.control.simulation.traces import FORMS
from inferd.errors import InferdError, SpecError
from inferd.spec.units import parse_duration

if TYPE_CHECKING:
    from inferd.control.desired import DesiredState
    from inferd.control.resources import Machine

__all__ = ["app", "run"]

FAILED, WRONG = 1, 2

_paths = click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))


def run(arguments: list[str]) -> int:
    """Run the command line ``arguments`` and return the exit status."""
    try:
        status = app.main(arguments, prog_name="inferd", standalone_mode=False)
    except SpecError as error:
        click.echo("\n".join(f"error: {fault}" for fault in error.faults), err=True)
        return WRONG
    except InferdError as error:
        click.echo(show.error_text(error, error.detail), err=True)
        return FAILED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 128 + 2
    except BrokenPipeError:
        # The reader has gone. What is left in the buffer is discarded, so that it causes no second error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    return status if isinstance(status, int) else 0


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from inferd.control.dataplane import __version__

        click.echo(f"inferd {__version__}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
def app() -> None:
    """Serve AI models behind one gateway, and keep a latency promise while doing it."""


@app.command()
@_paths
@setting_flags
def serve(paths: tuple[Path, ...], **flags: Any) -> int:
    """Serve models over REST and gRPC until SIGTERM or Ctrl-C.

    PATH is a model's file (.onnx, .py with a model class, and others), a folder of models (files, or
    <name>/<version>/model.onnx, with a config.pbtxt of Triton or without), or an inferd.yaml. NAMESPACE=PATH serves its
    models as NAMESPACE.MODEL. Flags override configuration files, and hold for every model.
    """
    from inferd.cli.serving import serve_until_signal

    desired, machine = _desired(paths, flags)
    return serve_until_signal(desired, machine)


@app.command()
@_paths
@click.option(
    "--deep",
    is_flag=True,
    help="Run the code of the models too: load every one of them in workers as serve does, with probe and warm-up.",
)
@setting_flags
def check(paths: tuple[Path, ...], deep: bool, **flags: Any) -> None:
    """Check files, folders and settings, and show what would be served. Takes what serve takes.

    Nothing is listened to. Without --deep, no code of a model's author runs: files of libraries (ONNX, boosters,
    scikit-learn, MLflow, Hugging Face and others) are loaded in a worker and run once on generated input; Python files
    are compiled, their imports are looked up and their class is looked for; a file that only trusted_sha256 lets be
    loaded is left alone; pipelines are checked against the inputs and outputs that are known by then. With --deep,
    whatever serve would report is reported, a port that is taken included. Exit status: 0 all can be served, 1 not, 2
    wrong settings.
    """
    from inferd.cli.checking import report

    desired, machine = _desired(paths, flags)
    report(desired, machine, deep=deep)


@app.command()
@click.argument("folder", metavar="NAME", type=click.Path(path_type=Path))
def new(folder: Path) -> None:
    """Write a project NAME with a model in Python and a test that passes."""
    from inferd.cli.scaffold import write_project

    for file in write_project(folder):
        click.echo(file)
    click.echo(f"\nnext: cd {folder} && inferd serve inferd.yaml")


@app.command()
@click.option("--json-schema", is_flag=True, help="The JSON schema of inferd.yaml, for editors.")
def settings(json_schema: bool) -> None:
    """Print every setting with its default, its meaning and the reason, as Markdown."""
    from inferd.spec import describe

    click.echo(json.dumps(describe.json_schema(), indent=2) if json_schema else describe.reference(), nl=json_schema)


@app.command()
def runtimes() -> None:
    """Print how each runtime takes types, categories, missing values and names, as Markdown."""
    from inferd.runtimes.describe import reference

    click.echo(reference(), nl=False)


@app.command()
@click.argument("model", required=False)
@click.option("--url", default="http://127.0.0.1:8002", show_default=True, help="Where the server's metrics are.")
@click.option("--json", "as_json", is_flag=True, help="Everything it says, for programs and for inferd simulate.")
def explain(model: str | None, url: str, as_json: bool) -> None:
    """Say why a running server does what it does: what it learned, promises, refuses.

    MODEL is one of its models; without it, all are explained.
    """
    from inferd.cli.explain import ask, report

    told = ask(url, model)
    click.echo(json.dumps(told, indent=2) if as_json else report(told))


@app.command(name="simulate")
@_paths
@click.option("--trace", "traces", multiple=True, required=True, metavar="[NAME=]TRACE", help=f"What comes: {FORMS}.")
@click.option("--profile", type=click.Path(path_type=Path), help="What 'inferd explain --json' said of the models.")
@click.option("--policy", default="slack", show_default=True, help="How batches are formed; others to compare with.")
@click.option("--find", type=click.Choice(["replicas"]), help="The fewest that hold every objective.")
@click.option("--duration", metavar="DURATION", help="Until when requests come.  [default: 60s, or as the file says]")
@click.option("--seed", default=0, show_default=True, help="Equal seeds give equal results.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw latencies and batch sizes into this file.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the whole report into this file.")
@setting_flags
def simulate_load(paths: tuple[Path, ...], traces: tuple[str, ...], **options: Any) -> int:
    """Say what a load would do to a server: the scheduler itself, under a virtual clock.

    PATH is what serve takes. TRACE is a rate, or a file of arrivals; with several models, NAME=TRACE for each.
    """
    from inferd.cli.simulate import Options, run

    own = {name: options.pop(name) for name in ("profile", "policy", "find", "duration", "seed", "plot", "json_file")}
    try:
        duration_s = None if own["duration"] is None else parse_duration(own.pop("duration"), unit_needed=True)
    except ValueError as fault:
        raise SpecError([f"--duration: {fault}"]) from None
    desired, machine = _desired(paths, options)
    chosen = Options(
        traces,
        own["profile"],
        own["policy"],
        own["find"],
        own["seed"],
        duration_s,
        own["plot"],
        own["json_file"],
    )
    return run(desired, machine, chosen)


def _desired(paths: tuple[Path, ...], flags: dict[str, Any]) -> tuple[DesiredState, Machine]:
    from inferd.control.config import desired_state
    from inferd.control.resources import observe

    machine = observe()
    server, model = given_by(flags)
    return desired_state([Path(os.path.normpath(path)) for path in paths], server, model, machine), machine
