"""The server's metrics, read as Prometheus reads them."""

from __future__ import annotations

import httpx
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families


class Metrics:
    """One scrape."""

    def __init__(self, url: str) -> None:
        response = httpx.get(url)
        assert response.status_code == 200, response.text
        self.content_type = response.headers["content-type"]
        strict = "openmetrics" in self.content_type
        parse = openmetrics.text_string_to_metric_families if strict else text_string_to_metric_families
        self.families = list(parse(response.text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of ``name`` that have these ``labels``; 0 where there are none."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and all(sample.labels.get(key) == value for key, value in labels.items())
        )
