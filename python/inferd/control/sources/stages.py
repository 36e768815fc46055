"""Models with hooks: a file whose class has ``preprocess`` or ``postprocess`` is served as a pipeline of its stages.

Reads a model's file as text, hands on the models and the pipeline that it is served as. Runs nothing of it: the file is
parsed, and only its workers import it.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from inferd.control.sources.source import Found

__all__ = ["Stages", "read_stages"]

_STAGES = ("preprocess", "predict", "postprocess")
# What belongs to the model as a whole or to the hooks' workers just as well; the rest is the predicting stage's.
_SHARED = ("batch_rows_max", "class_", "env", "parameters", "python", "runtime", "threads", "warmup")
# Of what clients send, and of what they get.
_FIRST, _LAST = ("optional",), ("labels",)


_CONTEXTS = {form.format(name) for name in ("Context", "inferd.Context") for form in ("{}", "list[{}]")}


class Stages(NamedTuple):
    """The stages of one class."""

    arguments: dict[str, list[str]]
    """By stage, in the order in which requests pass them: the names of its method's arguments."""

    def models(self, found: Found) -> list[tuple[str, Found]]:
        """Each stage as a model of its own, by its name."""
        shared = {name: value for name, value in found.given.items() if name in _SHARED}
        edges = ("name", "slo", "priority_default", *_FIRST, *_LAST)
        own = {name: value for name, value in found.given.items() if name not in edges}
        stages = list(self.arguments)
        models = []
        for stage in stages:
            given = dict(own if stage == "predict" else shared)
            given |= {name: found.given[name] for name in _FIRST if stage == stages[0] and name in found.given}
            given |= {name: found.given[name] for name in _LAST if stage == stages[-1] and name in found.given}
            if stage != stages[0] and not isinstance(given.get("warmup", True), bool):
                # Samples are what clients send.
                given["warmup"] = True
            models.append((stage, found._replace(name=f"{found.name}.{stage}", given=given)))
        return models

    def pipeline(self, found: Found) -> dict[str, Any]:
        """``PipelineSettings`` of the data plane; its outputs are those of the last stage, known once it is loaded."""
        objective = found.given.get("slo")
        steps = []
        before = None
        for stage, arguments in self.arguments.items():
            sources = [(name, [name if before is None else f"{before}.{name}"]) for name in arguments]
            steps.append(
                {
                    "name": stage,
                    "models": [(f"{found.name}.{stage}", 1)],
                    "inputs": sources,
                    "when": None,
                    "optional": False,
                }
            )
            before = stage
        return {
            "name": found.name,
            "slo": None
            if objective is None
            else {"latency_s": objective.latency_s, "percentile": objective.percentile},
            "priority_default": found.given.get("priority_default", 1),
            "steps": steps,
            "outputs": None,
        }


def read_stages(found: Found) -> Stages | None:
    """The stages of the model in ``found.file``; None where it is served as one model."""
    if found.file.suffix != ".py":
        return None
    try:
        tree = ast.parse(found.file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        # Its worker will say what is wrong with it.
        return None
    wanted = found.given.get("class_")
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and (node.name == wanted or (wanted is None and _is_model(node))):
            methods = {one.name: one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
            present = [stage for stage in _STAGES if stage in methods]
            if len(present) > 1 and "predict" in present:
                return Stages({stage: _arguments(methods[stage]) for stage in present})
    return None


def _is_model(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base) in ("Model", "inferd.Model") for base in node.bases)


def _arguments(method: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    arguments = [*method.args.posonlyargs, *method.args.args, *method.args.kwonlyargs]
    static = any(ast.unparse(decorator) == "staticmethod" for decorator in method.decorator_list)
    # What the server fills in is no other stage's to give.
    return [argument.arg for argument in arguments[not static :] if not _is_context(argument.annotation)]


def _is_context(annotation: ast.expr | None) -> bool:
    return annotation is not None and ast.unparse(annotation).strip("'\"") in _CONTEXTS
