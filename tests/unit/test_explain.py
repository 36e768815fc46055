"""What ``inferd explain`` says of what a server tells."""

from __future__ import annotations

from typing import Any

import pytest

from inferd.cli.explain import report


def told(**more: Any) -> dict[str, Any]:
    point = {"rows": 1, "mean_s": 0.002, "high_s": 0.003, "samples": 900}
    why: dict[str, Any] = {
        "objective": None,
        "queue": {"requests": 0, "rows": 0, "bytes": 0, "handed_out": 0},
        "replicas_ready": 1,
        "replicas_ejected": 0,
        "ejections": 0,
        "hedges": 0,
        "curve": [point],
        "measured": [point],
        "buckets": [],
        "spread": [[0.5, 1.0], [0.99, 1.5]],
        "overhead_s": {"batch": 1e-4, "unseen": [], "pauses": [], "request": None},
        "recent_batches": [[1, 900]],
        "arrivals": 900,
        "refusals": {},
        "demoted": 0,
        "rate_rows_per_s": 500.0,
        "returning_callers": 0.0,
        "lingers": 0,
    }
    model = {
        "name": "fraud",
        "version": 1,
        "state": "ready",
        "platform": "onnx",
        "replicas": [{"state": "ready"}],
        "signature": {"batching": "on"},
        "batch_rows_max": 32,
        "answered": {"error": 0},
        "facts": {},
        "explain": why | more,
    }
    return {"models": [model]}


def test_batches_that_wait_for_returning_callers_are_told_of() -> None:
    assert "come back" not in report(told())
    text = " ".join(report(told(returning_callers=7.6, lingers=1200)).split())
    assert "About 8 callers come back as soon as they have their answer" in text
    assert "small batches wait for them a moment: 1,200 did so far." in text


@pytest.mark.parametrize(
    ("ratios", "sentence"),
    [
        (
            [0.5] * 600 + [1.0] * 200,
            "slow at the moment: runs take 1.60 times what they took on average over the last 800",
        ),
        ([3.0] * 100 + [1.0] * 100, "fast at the moment: runs take 0.50 times"),
        ([1.0] * 500, None),
        ([0.2] * 20, None),
    ],
)
def test_a_machine_that_is_not_as_fast_as_usual_is_told_of(ratios: list[float], sentence: str | None) -> None:
    text = " ".join(report(told(recent_ratios=ratios)).split())
    if sentence is None:
        assert "at the moment" not in text
    else:
        assert sentence in text


def test_what_a_request_costs_the_gateway_is_told_once_it_is_known() -> None:
    assert "keeps the gateway" not in report(told())
    known = told(overhead_s={"batch": 0.0, "unseen": [], "pauses": [], "request": 3e-5})
    assert "A request keeps the gateway for 0.030 ms." in " ".join(report(known).split())


@pytest.mark.parametrize(("median", "told_of"), [(1e-4, False), (6e-4, True)])
def test_a_pause_between_batches_is_told_of_where_it_is_more_than_a_hand_over(median: float, *, told_of: bool) -> None:
    pauses = [[0.25, 0.0], [0.5, median], [0.75, 1.0]]
    text = " ".join(report(told(overhead_s={"batch": 0.0, "unseen": [], "pauses": pauses, "request": None})).split())
    assert ("Between two batches a replica pauses for 0.600 ms" in text) == told_of


def test_what_clients_do_not_see_is_told_of() -> None:
    model = told()["models"][0]
    model["facts"] = {"runtime": "onnxruntime 1", "left_out": "'y' (a map)"}
    assert "Runtime    onnxruntime 1. Clients don't see 'y' (a map)." in report({"models": [model]})


def test_what_was_assumed_of_a_model_is_told_of() -> None:
    model = told()["models"][0]
    model["facts"] = {"runtime": "lightgbm 4", "note": "categories of pandas are assumed in city"}
    text = " ".join(report({"models": [model]}).split())
    assert "lightgbm 4. Of what clients send, categories of pandas are assumed in city." in text


COMPARED = {
    "by": "probe",
    "why": "9 rows were alike",
    "shared": True,
    "probed": 9,
    "rows": 0,
    "rows_wanted": None,
    "differing": 0,
    "undecided": 0,
    "bound": None,
    "audited": True,
}


@pytest.mark.parametrize(
    ("batching", "sentences"),
    [
        ({}, "On, up to 32 rows. A probe at load decided: 9 rows were alike. Rows that come are compared"),
        (
            {"rows": 400, "bound": 0.0075, "undecided": 2},
            "none differed: at most 0.75% do, with 95 % confidence; more are compared as long as it is served."
            " 2 could not be compared: their answers differ from run to run.",
        ),
        (
            {"by": "traffic", "shared": False, "rows_wanted": 400, "rows": 30, "audited": False},
            "One request at a time: 30 of 400 rows are compared yet.",
        ),
        (
            {
                "by": "traffic",
                "why": "output 'y' changed",
                "shared": False,
                "rows": 7,
                "differing": 1,
                "audited": False,
            },
            "Off until the next load. Rows that came decided: output 'y' changed. Of 7 rows that came and were compared"
            " 1 differed.",
        ),
    ],
)
def test_who_decided_whether_requests_share_runs_is_told_with_the_bound(
    batching: dict[str, object], sentences: str
) -> None:
    assert sentences in " ".join(report(told(batching=COMPARED | batching)).split())
