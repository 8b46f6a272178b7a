"""Routes of the processes on this database: who they are, what they hold, and which of them are to drain."""

from typing import Annotated, TypeAlias

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from app import idempotency, nodes
from app.api import documents, schemas, views
from app.api.answers import as_json
from app.api.dependencies import House, Query, Rooms, body, keyed

router = APIRouter(tags=["nodes"])

HTTP_ACCEPTED = 202
_TOLD = {
    202: {"model": views.NodeView},
    **documents.problems(400, 404, 409, 413, 415, 422),
    404: documents.problems(404)[404] | {"description": "No such node."},
    409: documents.problems(409)[409] | {"description": "The first request with this key is under way."},
}

Nothing: TypeAlias = Annotated[schemas.Nothing, Depends(body(schemas.Nothing))]


@router.get(
    "/v1/nodes",
    responses={200: {"model": views.NodeList}, **documents.problems(422)},
    summary="List the nodes",
)
async def find(request: Request, house: Rooms) -> Response:
    """List the processes on this database, and those that turns still name."""
    Query(request)
    async with house.reading() as db:
        return as_json({"nodes": await nodes.find(db)})


@router.post("/v1/nodes/{instance_id}/drain", status_code=202, responses=_TOLD, summary="Have a node drain")
async def drain(instance_id: str, request: Request, house: Rooms, asked: Nothing) -> Response:
    """Have a node give its turns and its readers to others; it goes on answering until it is stopped."""
    return await _tell(request, house, instance_id, asked, is_draining=True)


@router.post("/v1/nodes/{instance_id}/undrain", status_code=202, responses=_TOLD, summary="Have a node work again")
async def undrain(instance_id: str, request: Request, house: Rooms, asked: Nothing) -> Response:
    """Have a node that drains take turns and readers again."""
    return await _tell(request, house, instance_id, asked, is_draining=False)


async def _tell(request: Request, house: House, instance_id: str, asked: schemas.Nothing, *, is_draining: bool) -> Response:
    key = keyed(request, asked)
    async with house.transaction() as tx:
        kept = await idempotency.begin(tx, key)
        if kept is not None:
            return as_json(kept.response, HTTP_ACCEPTED, {"Idempotency-Replayed": "true"})
        view = await nodes.tell(tx.db, instance_id, is_draining=is_draining)
        tx.after_commit.append(lambda: house.journal.rouse(instance_id))
        await idempotency.keep(tx, key, session_id=None, response=view)
    return as_json(view, HTTP_ACCEPTED)
