"""Signed metadata and bundles, and how they get here."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse

from fleet_server.api.depends import AnyoneKnown, ServicesOf, Steerer, Viewer
from fleet_server.api.throttle import ThrottledFile
from fleet_server.database.models import Release
from fleet_server.errors import NotFoundError
from ommatid.contract.digests import Sha256

router = APIRouter(prefix="/v1", tags=["releases"])

RootName = Annotated[str, Path(pattern=r"^[1-9][0-9]{0,9}\.root\.json$")]


class ReleaseView(BaseModel):
    """One release, as the API shows it."""

    model: str
    version: str
    target: str
    path: str
    digest: Sha256
    size_bytes: int
    hardware: list[str]
    minimum_agent: str
    release_counter: int
    evidence: dict[str, Any]
    pushed_at: str
    pushed_by: str

    @classmethod
    def of(cls, row: Release) -> "ReleaseView":
        """Return the view of a row."""
        return cls(
            model=row.model,
            version=row.version,
            target=row.target,
            path=row.path,
            digest=row.digest,
            size_bytes=row.length,
            hardware=row.hardware,
            minimum_agent=row.minimum_agent,
            release_counter=row.release_counter,
            evidence=row.evidence,
            pushed_at=row.pushed_at.isoformat(),
            pushed_by=row.pushed_by,
        )


async def raw_body(request: Request) -> bytes:
    """Return the bytes of the request, which BodyLimit has bounded."""
    return await request.body()


@router.get("/tuf/director/{name}")
def director_root(parts: ServicesOf, name: RootName) -> Response:
    """Return a root of the director."""
    path = parts.places.metadata / "director" / name
    if not path.is_file():
        raise NotFoundError(f"there is no director document {name}")
    return Response(path.read_bytes(), media_type="application/json")


@router.get("/tuf/release/{name}")
def release_document(parts: ServicesOf, name: str) -> Response:
    """Return a document of the release repository."""
    return Response(parts.releases.document(name), media_type="application/json")


@router.api_route("/bundles/{sha256}", methods=["GET", "HEAD"])
def bundle(request: Request, parts: ServicesOf, _asking: AnyoneKnown, sha256: str) -> FileResponse:
    """Return a bundle, or a range of it."""
    headers = {"ETag": f'"{sha256}"', "Cache-Control": "private, max-age=31536000, immutable"}
    path = parts.bundles.path(sha256)
    return ThrottledFile(request.app.state.bundle_bucket, path, headers=headers)


@router.put("/bundles/{sha256}", status_code=204)
async def upload(request: Request, parts: ServicesOf, _asking: Steerer, sha256: str) -> None:
    """Take a bundle in; it is offered to nobody before a signed release names it."""
    with parts.bundles.receive(sha256) as arriving:
        async for chunk in request.stream():
            await run_in_threadpool(arriving.write, chunk)
        await run_in_threadpool(parts.bundles.finish, arriving, sha256)


@router.get("/releases")
def releases(parts: ServicesOf, asking: Viewer) -> list[ReleaseView]:
    """Return every release, the newest first."""
    return [ReleaseView.of(row) for row in parts.releases.every(asking.tenant)]


@router.post("/releases", status_code=201)
def publish(parts: ServicesOf, asking: Steerer, targets: Annotated[bytes, Depends(raw_body)]) -> list[ReleaseView]:
    """Take a signed releases document (targets.json); return the releases that it adds."""
    added = parts.releases.publish(targets, asking.name)
    parts.changes.notify()
    return [ReleaseView.of(row) for row in added]
