"""The alert rules and the dashboard use only metrics and labels that /metrics has, and runbooks that exist."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from django.db.models.functions import Now
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from portal.models import Heartbeat
from portal.monitoring import counters
from tests.local_aws import ROOT

FOLDER = ROOT / "docs" / "monitoring"
OPERATIONS = ROOT / "docs" / "operations.md"
# What the expressions may use beside metrics: https://prometheus.io/docs/prometheus/latest/querying/functions/
PROMQL = {"absent", "delta", "histogram_quantile", "increase", "or", "rate", "sum", "topk", "unless"}
MUST_ALERT = {
    "PortalRunnerSilent",
    "PortalRolloutOverdue",
    "PortalSweepLags",
    "PortalAwsThrottled",
    "PortalAwsSilent",
    "PortalServerErrors",
    "PortalSlow",
    "PortalAuditChainBroken",
    "PortalNotificationsUndelivered",
}


def read_alerts() -> dict[str, dict[str, Any]]:
    (group,) = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    found = {rule["alert"]: rule for rule in rules}
    assert len(found) == len(rules)
    return found


def read_panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    return panels


def find_anchors() -> set[str]:
    """Return the anchors of the sections of docs/operations.md, as GitHub makes them."""
    headings = re.findall(r"^## (.+)$", OPERATIONS.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def find_expressions() -> Iterator[tuple[str, str]]:
    yield from ((name, rule["expr"]) for name, rule in read_alerts().items())
    for panel in read_panels():
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", []))


@pytest.fixture
def known(db: None, settings: Any) -> dict[str, set[str]]:
    """Return the labels of every sample of /metrics by its name, once each counter has counted something."""
    settings.METRICS_TOKEN = "token"
    Heartbeat.objects.create(name="worker", beat_at=Now())
    counters.begin_again()
    for counter in counters.COUNTERS:
        counters.count(counter, *counter.labels)
    for histogram in counters.HISTOGRAMS:
        counters.observe_seconds(histogram, *histogram.labels, seconds=1)
    counters.write_counts()
    text = Client().get("/metrics", headers={"Authorization": "Bearer token"}).content.decode()
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families), "a metric comes from two sources"
    labels: dict[str, set[str]] = {family.name: set() for family in families if family.type == "gauge"}
    for family in families:
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


def find_unknown(expression: str, known: dict[str, set[str]]) -> list[str]:
    """Return the names in a PromQL expression that are neither a metric, a label of its metrics nor a part of PromQL."""
    bare = re.sub(r'"[^"]*"', "", expression)
    unknown = []
    usable: set[str] = set()
    for metric, selector in re.findall(r"(portal_\w+)(?:\{([^}]*)\})?", bare):
        usable |= known.get(metric, set())
        unknown += [label for label in re.findall(r"\w+", selector) if label not in known.get(metric, set())]
    for grouping in re.findall(r"by \(([^)]*)\)", bare):
        unknown += [label for label in re.findall(r"\w+", grouping) if label not in usable]
    rest = re.sub(r"\{[^}]*\}|by \([^)]*\)|\[[^]]*\]", " ", bare)
    return unknown + [name for name in re.findall(r"[A-Za-z_]\w*", rest) if name not in known.keys() | PROMQL]


def test_each_expression_uses_only_what_is_measured(known: dict[str, set[str]]) -> None:
    found = {name: unknown for name, expression in find_expressions() if (unknown := find_unknown(expression, known))}

    assert found == {}


def test_a_typing_error_in_an_expression_is_noticed(known: dict[str, set[str]]) -> None:
    wrong = (
        'sum by (acount) (rate(portal_aws_calls_total{reslt="ok"}[5m])) / portal_aws_call + ratee(portal_rollouts_open)'
    )

    assert find_unknown(wrong, known) == ["reslt", "acount", "portal_aws_call", "ratee"]


def test_the_parentheses_of_each_expression_match() -> None:
    for name, expression in find_expressions():
        assert (expression.count("("), expression.count("{")) == (expression.count(")"), expression.count("}")), name


def test_each_alert_says_what_it_means_and_what_to_do() -> None:
    alerts, anchors = read_alerts(), find_anchors()

    assert alerts.keys() >= MUST_ALERT
    for name, rule in alerts.items():
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (page, anchor in anchors) == ("docs/operations.md", True), name
        assert rule["annotations"]["summary"].endswith("."), name
        assert rule["labels"]["severity"] in ("critical", "warning"), name


def test_the_sections_that_operations_links_to_exist() -> None:
    linked = re.findall(r"\]\(#([\w-]+)\)", OPERATIONS.read_text())

    assert set(linked) - find_anchors() == set()


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = read_panels()
    cells = [
        (place["x"] + x, place["y"] + y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["w"])
        for y in range(place["h"])
    ]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
