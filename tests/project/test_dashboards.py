"""The dashboard and the alert rules speak of metrics, labels and settings that exist, and of every metric there is."""

import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import yaml  # type: ignore[import-untyped]

from app import telemetry
from app.settings import Settings
from tests.project.source import DOCS, ROOT, python_files, strings

DASHBOARD, ALERTS = DOCS / "grafana" / "dashboard.json", DOCS / "grafana" / "alerts.yml"
LOG_LINES = re.compile(r"log line (\w+)")


def panels() -> list[dict[str, Any]]:
    """Return the dashboard's panels."""
    found: list[dict[str, Any]] = orjson.loads(DASHBOARD.read_bytes())["panels"]
    return found


def rules() -> list[dict[str, Any]]:
    """Return the alert rules."""
    found: list[dict[str, Any]] = [
        rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
    ]
    return found


def expressions() -> Iterator[str]:
    """Yield every expression of both."""
    yield from (target["expr"] for panel in panels() for target in panel["targets"])
    yield from (rule["expr"] for rule in rules())


def series() -> dict[str, set[str]]:
    """Return the names that Prometheus has for what is kept, each with its labels."""
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return {
        metric.name + suffix: set(_labels(metric.name)) | ({"le"} if suffix == "_bucket" else set())
        for metric in telemetry.REGISTRY.collect()
        for suffix in suffixes[metric.type]
    }


def _labels(name: str) -> tuple[str, ...]:
    collector: Any = telemetry.REGISTRY._names_to_collectors[name]
    labels: tuple[str, ...] = collector._labelnames
    return labels


def test_metrics_of_the_dashboard_and_the_rules_are_those_of_the_service() -> None:
    named = {name for expression in expressions() for name in re.findall(r"suricate_\w+", expression)}

    assert named - set(series()) == set()
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in named}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in series()} - shown == set()


def test_labels_that_are_asked_for_exist() -> None:
    known = set().union(*series().values()) | {"instance", "job"}
    for expression in expressions():
        asked = set(re.findall(r"(\w+)\s*=~?\s*\"", expression))
        asked |= {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
        assert asked - known == set(), expression


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_expression_is_closed(expression: str) -> None:
    for opening, closing in ("()", "[]", "{}"):
        assert expression.count(opening) == expression.count(closing)


def test_rules_have_names_of_their_own_and_say_what_is_so_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert rule["annotations"].keys() == {"summary", "description"}


def test_settings_and_log_lines_that_are_named_exist() -> None:
    text = DASHBOARD.read_text(encoding="utf-8") + ALERTS.read_text(encoding="utf-8")
    said = {word for path in python_files(ROOT / "app") for word in strings(path)}

    assert set(re.findall(r"SURICATE_\w+", text)) - set(Settings.variables().values()) == set()
    assert {"turn_failed"} <= set(LOG_LINES.findall(text)) <= said


def test_panels_lie_beside_each_other() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]

    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in panels()}) == len(panels())
