"""The page that shows the OpenAPI document: Swagger UI, served from here and with nothing from elsewhere."""

import base64
import hashlib
from collections.abc import Awaitable, Callable
from importlib import resources

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

PATH = "/docs"
ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
ASSET_SECONDS = 3600
_SCRIPT = """
SwaggerUIBundle({
  url: "openapi.json", dom_id: "#page", deepLinking: true, validatorUrl: null, tryItOutEnabled: false,
  presets: [SwaggerUIBundle.presets.apis],
});
"""
_PAGE = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Suricate</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="./docs/swagger-ui.css">
<div id="page"></div>
<script src="./docs/swagger-ui-bundle.js"></script>
<script>{_SCRIPT}</script>
</html>
"""
_DIGEST = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
POLICY = "; ".join([
    "default-src 'none'",
    f"script-src 'self' 'sha256-{_DIGEST}'",
    "style-src 'self'",
    "img-src 'self' data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
])


def install(app: Starlette) -> None:
    """Serve the page, and the two files that it is made with."""
    app.router.add_route(PATH, _page, include_in_schema=False)
    for name, kind in ASSETS.items():
        app.router.add_route(f"{PATH}/{name}", _asset(name, kind), include_in_schema=False)


async def _page(_request: Request) -> Response:
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": POLICY})


def _asset(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    path = str(resources.files("fastapi_offline") / "static" / name)

    async def answer(_request: Request) -> Response:
        return FileResponse(path, media_type=kind, headers={"Cache-Control": f"max-age={ASSET_SECONDS}"})

    return answer
