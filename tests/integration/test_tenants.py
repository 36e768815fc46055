"""Requests on behalf of somebody: a header, weights, and shares by them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outside.metrics import Metrics
from outside.models import SLEEP
from outside.traffic import Background, all_at_once, orders, send
from outside.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

MOODY = "/v2/models/moody/infer"


def test_a_tenant_with_more_weight_that_comes_later_is_served_first_but_not_alone(
    serve, files: Path, tmp_path: Path
) -> None:
    (tmp_path / "inferd.yaml").write_text(
        "server: {tenant_header: x-tenant, tenants: {gold: 3, silver: 1}}\n"
        f"models:\n  - path: {files / 'moody.py'}\n    batching: off\n"
    )
    with serve(tmp_path / "inferd.yaml", "--no-profiling") as server:
        bodies = [orders((SLEEP, 0.02))] * 60
        silver = Background(lambda: all_at_once(server.address, MOODY, bodies, 60, {"x-tenant": "silver"}))
        wait_for(lambda: Metrics(server.metrics_url).value("inferd_queue_rows", model="moody") > 50, "a backlog")
        gold = send(server.address, MOODY, bodies, 60, X_Tenant="gold")
        answers = [*gold, *silver.answers()]
        assert all(answer.status == 200 for answer in answers)
        median = sorted(answer.took_s for answer in gold)[30]
        # Three of four runs are gold's: half of gold's are done after forty, ten of them silver's.
        assert median < 0.02 * 60, "gold waited behind all of silver"
        first = sum(answer.took_s < 0.5 for answer in silver.answers())
        assert first >= 5, "silver waited for gold"
        counted = Metrics(server.metrics_url)
        for tenant in ("gold", "silver"):
            assert counted.value("inferd_tenant_requests_total", tenant=tenant, outcome="ok") == 60


def test_names_that_the_settings_do_not_know_are_served_and_make_no_labels(serve, files: Path) -> None:
    with serve(files / "moody.py", "--no-profiling", "--tenant-header", "x-tenant") as server:
        answers = send(server.address, MOODY, [orders((0, 0))] * 5, 1, X_Tenant="somebody")
        assert [answer.status for answer in answers] == [200] * 5
        assert not any("somebody" in str(sample.labels) for sample in Metrics(server.metrics_url).samples)
