"""The files that the page loads, by name; nothing else is served from disk."""

from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import FileResponse

from fleet_server.errors import NotFoundError

FOLDER: Final = Path(__file__).parent / "static"
KINDS: Final = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "vendor/htmx-4.0.1.min.js": "text/javascript",
    "vendor/hx-sse-4.0.1.min.js": "text/javascript",
}

router = APIRouter(include_in_schema=False)


@router.get("/static/{name:path}")
def asset(name: str) -> FileResponse:
    """Return one file of the page."""
    if name not in KINDS:
        raise NotFoundError(f"the page has no file {name[:80]!r}")
    fixed = name.startswith("vendor/")
    headers = {
        "Cache-Control": "max-age=31536000, immutable" if fixed else "no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    return FileResponse(FOLDER / name, media_type=KINDS[name], headers=headers)
