"""`GET /v1/usage`: what it sums up, and what it refuses."""

from datetime import timedelta
from typing import Any

import pytest

from app import clock
from tests.provider_double import scripts
from tests.provider_double.client import ProviderDouble
from tests.service import Service

pytestmark = pytest.mark.anyio

REPORT = {"from", "to", "group_by", "sums", "total"}
SUM = {"day", "credential", "provider", "model", "calls", "usage"}
TODAY = clock.now().date().isoformat()


async def told(service: Service, **query: str) -> dict[str, Any]:
    """Ask, and return the answer."""
    answer = await service.client.get("/v1/usage", params=query)
    assert answer.status_code == 200, answer.text
    report: dict[str, Any] = answer.json()
    return report


async def test_bill_of_all_sessions_is_what_was_used_also_of_those_that_are_gone(
    configurable: Service, shared_double: ProviderDouble
) -> None:
    await shared_double.reset()
    assert (await told(configurable))["sums"] == []
    turns = [
        ("Hello", "scripted", "scripted"),
        ("Again", "double", "openai_compatible"),
        ("Fail", "other", "openai_compatible"),
    ]
    await shared_double.play([scripts.status(400)], match="Fail")
    bill: list[dict[str, int]] = []
    for prompt, model, provider in turns:
        body = {"prompt": prompt, "model": model, "provider": provider, "tools": {"builtins": False}}
        session_id = (await configurable.client.post("/v1/sessions", json=body)).json()["session_id"]
        bill.append((await configurable.client.get(f"/v1/sessions/{session_id}")).json()["billing"]["usage"])
        await configurable.client.delete(f"/v1/sessions/{session_id}")

    report = await told(configurable, group_by="model,provider", **{"from": TODAY})

    assert (report["from"] <= report["to"], report["group_by"]) == (True, ["provider", "model"])
    assert [(one["provider"], one["model"], one["day"]) for one in report["sums"]] == [
        ("openai_compatible", "double", None),
        ("scripted", "scripted", None),
    ]
    for name in bill[0]:
        assert report["total"]["usage"][name] == sum(one[name] for one in bill)
    assert report["total"]["calls"] == sum(one["calls"] for one in report["sums"])
    [*_, one] = report["sums"]
    assert (set(report), set(one)) == (REPORT, SUM)


async def test_days_are_thirty_up_to_today_unless_told_otherwise(service: Service) -> None:
    report = await told(service)
    last = await told(service, to="2026-03-31")

    assert report["group_by"] == ["day"]
    assert report["from"] == (clock.now().date() - timedelta(days=29)).isoformat() or report["to"] != TODAY
    assert (last["from"], last["to"], last["sums"]) == ("2026-03-02", "2026-03-31", [])
    assert last["total"] == {"calls": 0, "usage": dict.fromkeys(last["total"]["usage"], 0)}


@pytest.mark.parametrize(
    ("query", "loc"),
    [
        ("from=2026-3-1", "query.from"),
        ("from=20260301", "query.from"),
        ("from=2026-02-30", "query.from"),
        ("from=0000-01-01", "query.from"),
        ("from=%EF%BC%92026-01-01", "query.from"),
        ("to=2026-03-01T00:00:00Z", "query.to"),
        ("from=2026-03-02&to=2026-03-01", "query.from"),
        ("from=2025-01-01&to=2026-03-01", "query.from"),
        ("group_by=day,day", "query.group_by"),
        ("group_by=realm_id", "query.group_by"),
        ("group_by=day,", "query.group_by"),
        ("group_by=day&group_by=model", "query.group_by"),
        ("limit=5", "query.limit"),
    ],
)
async def test_what_is_no_day_or_no_name_is_refused(service: Service, query: str, loc: str) -> None:
    answer = await service.client.get(f"/v1/usage?{query}")

    assert (answer.status_code, answer.json()["code"], answer.json()["errors"][0]["loc"]) == (422, "INVALID_REQUEST", loc)


async def test_first_days_of_the_calendar_are_answered(service: Service) -> None:
    assert (await told(service, to="0001-01-05"))["from"] == "0001-01-01"
    assert (await told(service, **{"from": "9999-12-31", "to": "9999-12-31"}))["sums"] == []
