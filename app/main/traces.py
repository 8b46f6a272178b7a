"""Where spans go, as the settings have it."""

import tomllib
from typing import TYPE_CHECKING

from app.db.migrate import ROOT
from app.errors import StartupError
from app.settings import Settings

if TYPE_CHECKING:
    from app.otlp import Otlp


def opened(settings: Settings) -> "Otlp | None":
    """Begin to send spans, where that is on; whoever asked for it closes it.

    Raises:
        StartupError: the libraries are not there.
    """
    if not settings.otlp:
        return None
    try:
        from app.otlp import Otlp  # its libraries are an extra
    except ImportError as error:
        raise StartupError("SURICATE_OTLP needs the libraries of OpenTelemetry: pip install 'suricate[otlp]'.") from error
    return Otlp(version())


def version() -> str:
    """Return this code's version."""
    told: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return told
