"""The list of nodes, and draining, as callers meet them."""

import pytest

from tests.api import shapes
from tests.service import Service

pytestmark = pytest.mark.anyio

NOBODY = "0199c0de-0000-7000-8000-000000000000"


async def own_id(service: Service) -> str:
    """Return the id of the one node."""
    [node] = (await service.client.get("/v1/nodes")).json()["nodes"]
    return str(node["instance_id"])


async def test_list_shows_the_server(service: Service) -> None:
    answer = await service.client.get("/v1/nodes")

    [node] = answer.json()["nodes"]
    assert answer.status_code == 200
    shapes.assert_shaped(node, shapes.NODE)
    assert (node["kind"], node["status"], node["pid"]) == ("serve", "ready", service.process.pid)


async def test_list_takes_no_parameters(service: Service) -> None:
    answer = await service.client.get("/v1/nodes?status=lost")

    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")


@pytest.mark.parametrize("act", ["drain", "undrain"])
@pytest.mark.parametrize("instance_id", [NOBODY, "canary"])
async def test_node_that_is_not_there_is_not_found(service: Service, act: str, instance_id: str) -> None:
    answer = await service.client.post(f"/v1/nodes/{instance_id}/{act}")

    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
    assert "canary" not in answer.text


async def test_field_that_is_not_known_is_refused(service: Service) -> None:
    answer = await service.client.post(f"/v1/nodes/{await own_id(service)}/drain", json={"grace_seconds": 1})

    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")
