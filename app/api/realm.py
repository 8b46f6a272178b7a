"""Routes of the realm's configuration: read, replace, merge."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from app import realms
from app.api import documents, realm_schemas
from app.api.answers import as_json
from app.api.dependencies import House, Query, Rooms, body
from app.realms import OwnProviders, Realm

router = APIRouter(tags=["realm"])

_CHANGED = {
    200: {"model": realm_schemas.RealmConfig},
    **documents.problems(400, 409, 413, 415, 422, 501),
    409: documents.problems(409)[409] | {"description": "The configuration is of another generation than was expected."},
}


@router.get(
    "/v1/realm/config",
    responses={200: {"model": realm_schemas.RealmConfig}, **documents.problems(422)},
    summary="Read the realm's configuration",
)
async def get(request: Request, house: Rooms) -> Response:
    """Read the configuration, with the keys that are set; a secret only says that it is."""
    Query(request)
    async with house.reading() as db:
        return _told(await realms.get(db))


@router.put(
    "/v1/realm/config",
    responses=_CHANGED,
    openapi_extra=documents.takes(realm_schemas.PutConfig),
    summary="Replace the realm's configuration",
)
async def put(house: Rooms, asked: Annotated[realm_schemas.PutConfig, Depends(body(realm_schemas.PutConfig))]) -> Response:
    """Replace the configuration; it takes effect for sessions that are made or changed from then on."""
    await _check_urls(house, realms.stored(asked.config))
    async with house.transaction() as tx:
        realm = await realms.put(tx, asked.config, expected_generation=asked.expected_generation, seals=house.seals)
        _check(house, realm)
    return _told(realm)


@router.patch(
    "/v1/realm/config",
    responses=_CHANGED,
    openapi_extra=documents.takes(realm_schemas.PatchConfig),
    summary="Change the realm's configuration",
)
async def patch(
    house: Rooms, asked: Annotated[realm_schemas.PatchConfig, Depends(body(realm_schemas.PatchConfig))]
) -> Response:
    """Change the configuration by a merge patch; null removes a key."""
    await _check_urls(house, asked.config)
    async with house.transaction() as tx:
        realm = await realms.patch(tx, asked.config, expected_generation=asked.expected_generation, seals=house.seals)
        _check(house, realm)
    return _told(realm)


async def _check_urls(house: House, config: Mapping[str, Any]) -> None:
    """Refuse URLs that may not be reached, before anything is locked; the shape of the rest is checked later."""
    providers = config.get("providers")
    for name in OwnProviders.model_fields:
        own = providers.get(name) if isinstance(providers, dict) else None
        if isinstance(own, dict) and isinstance(own.get("base_url"), str):
            fault = await house.url_fault(own["base_url"], f"config.providers.{name}.base_url")
            if fault is not None:
                raise fault


def _check(house: House, realm: Realm) -> None:
    """Refuse, with the transaction that wrote it, a configuration under which no session could be made."""
    house.defaults(realm.config).check()


def _told(realm: Realm) -> Response:
    return as_json({"config": realms.shown(realm.config), "generation": realm.generation})
