"""Routes of webhooks, and of what was and is to be delivered to them."""

from typing import Annotated, Any, TypeAlias, get_args

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from app import idempotency, sessions
from app.api import documents, schemas, webhook_schemas
from app.api.answers import as_json
from app.api.dependencies import Query, Rooms, body, keyed
from app.api.webhook_schemas import ChangeWebhook, CreateWebhook
from app.webhooks import deliveries, webhook
from app.webhooks.deliveries import Status
from app.webhooks.webhook import KINDS

router = APIRouter(tags=["webhooks"])

HTTP_CREATED, HTTP_ACCEPTED = 201, 202
REPLAYED = {"Idempotency-Replayed": "true"}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    found = documents.problems(*statuses)
    if 404 in found:  # noqa: PLR2004 - a status
        found[404] = found[404] | {"description": "No such webhook, delivery or session."}
    return found


Nothing: TypeAlias = Annotated[schemas.Nothing, Depends(body(schemas.Nothing))]


@router.post(
    "/v1/webhooks",
    status_code=201,
    responses={201: {"model": webhook_schemas.NewWebhook}, **_problems(400, 404, 409, 413, 415, 422, 429)},
    openapi_extra=documents.takes(CreateWebhook),
    summary="Have a URL told of events",
)
async def create(request: Request, house: Rooms, asked: Annotated[CreateWebhook, Depends(body(CreateWebhook))]) -> Response:
    """Make a webhook and show its secret, once; it is told of what happens from now on."""
    key, fault = keyed(request, asked), await house.url_fault(asked.url, "url")
    async with house.transaction() as tx:
        kept = await idempotency.begin(tx, key)
        if kept is not None and kept.response is not None:
            made = await webhook.get(tx.db, kept.response["webhook_id"])
        else:
            if fault is not None:
                raise fault
            if asked.session_id is not None:
                await sessions.get(tx.db, asked.session_id)
            types = asked.types or KINDS
            made = await webhook.create(tx.db, house.seals, url=asked.url, types=types, session_id=asked.session_id)
            # Not the answer itself, which holds the secret.
            await idempotency.keep(tx, key, session_id=asked.session_id, response={"webhook_id": made.id})
    answer = made.view() | {"secret": made.secret(house.seals)}
    return as_json(answer, HTTP_CREATED, REPLAYED if kept is not None else {})


@router.get(
    "/v1/webhooks",
    responses={200: {"model": webhook_schemas.WebhookList}, **_problems(422)},
    summary="List the realm's webhooks",
)
async def find(request: Request, house: Rooms) -> Response:
    """List all webhooks of the realm, without their secrets."""
    Query(request)
    async with house.reading() as db:
        return as_json({"webhooks": [one.view() for one in await webhook.find(db)]})


@router.get(
    "/v1/webhooks/{webhook_id}",
    responses={200: {"model": webhook_schemas.WebhookView}, **_problems(404, 422)},
    summary="Read a webhook",
)
async def get(webhook_id: str, request: Request, house: Rooms) -> Response:
    """Read a webhook, without its secret."""
    Query(request)
    async with house.reading() as db:
        return as_json((await webhook.get(db, webhook_id)).view())


@router.patch(
    "/v1/webhooks/{webhook_id}",
    responses={200: {"model": webhook_schemas.WebhookView}, **_problems(400, 404, 413, 415, 422)},
    openapi_extra=documents.takes(ChangeWebhook),
    summary="Change a webhook",
)
async def change(webhook_id: str, house: Rooms, asked: Annotated[ChangeWebhook, Depends(body(ChangeWebhook))]) -> Response:
    """Change where a webhook leads and what it is told of, or switch it off; deliveries under way are made as it is then."""
    if asked.url is not None and (fault := await house.url_fault(asked.url, "url")):
        raise fault
    async with house.transaction() as tx:
        changed = await webhook.change(tx.db, webhook_id, asked.model_dump(exclude_none=True))
    return as_json(changed.view())


@router.delete("/v1/webhooks/{webhook_id}", status_code=204, responses=_problems(404), summary="Delete a webhook")
async def delete(webhook_id: str, house: Rooms) -> Response:
    """Delete a webhook, with all that was or is to be delivered to it."""
    async with house.transaction() as tx:
        await webhook.delete(tx.db, webhook_id)
    return Response(status_code=204)


@router.get(
    "/v1/webhooks/{webhook_id}/deliveries",
    responses={200: {"model": webhook_schemas.DeliveryPage}, **_problems(400, 404, 422)},
    openapi_extra=documents.query(
        status={"type": "string", "enum": list(get_args(Status))},
        limit={"type": "integer", "minimum": 0, "maximum": 200, "default": 50},
        cursor={"type": "string", "description": "`next_cursor` of the page before."},
    ),
    summary="List a webhook's deliveries",
)
async def find_deliveries(webhook_id: str, request: Request, house: Rooms) -> Response:
    """List what was and is to be delivered, the newest first; what is dead was given up, and may be replayed."""
    query = Query(request, "status", "limit", "cursor")
    status, limit = query.choice("status", *get_args(Status)), query.integer("limit", 50, most=200)
    async with house.reading() as db:
        found = await webhook.get(db, webhook_id)
        page, cursor = await deliveries.find(db, found.id, status=status, limit=limit, cursor=query.text("cursor"))
    return as_json({"deliveries": page, "next_cursor": cursor})


@router.post(
    "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay",
    status_code=202,
    responses={202: {"model": webhook_schemas.DeliveryView}, **_problems(400, 404, 409, 413, 415, 422)},
    summary="Have a delivery made again",
)
async def replay(webhook_id: str, delivery_id: str, request: Request, house: Rooms, asked: Nothing) -> Response:
    """Have a delivery made again under its id, from its first try on, whatever came of it."""
    key = keyed(request, asked)
    async with house.transaction() as tx:
        kept = await idempotency.begin(tx, key)
        if kept is not None:
            return as_json(kept.response, HTTP_ACCEPTED, REPLAYED)
        found = await webhook.get(tx.db, webhook_id)
        view = await deliveries.replay(tx.db, found.id, delivery_id)
        await idempotency.keep(tx, key, session_id=view["session_id"], response=view)
    return as_json(view, HTTP_ACCEPTED)
