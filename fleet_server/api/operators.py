"""What operators do to devices, and the server's own health."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from fleet_server.api.depends import Admin, ServicesOf, Viewer
from fleet_server.metrics import CONTENT_TYPE
from fleet_server.offboarding import revoke_device
from fleet_server.tokens import enrolment_token
from ommatid.contract.enrolment import Tag
from ommatid.contract.topics import IDENTIFIER

router = APIRouter()


class TokenRequest(BaseModel):
    """What a new enrolment token allows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    expires_s: float = Field(86400, gt=0, le=366 * 86400)
    uses: int = Field(1, ge=1, le=1_000_000)
    tags: tuple[Tag, ...] = Field((), max_length=32)


class TokenAnswer(BaseModel):
    """A new enrolment token; it is shown this once."""

    token: str


@router.post("/v1/tokens", status_code=201, tags=["operators"])
def new_token(parts: ServicesOf, asking: Admin, request: TokenRequest) -> TokenAnswer:
    """Make an enrolment token."""
    secret = parts.enrolment.new_token(
        life=timedelta(seconds=request.expires_s), uses=request.uses, tags=request.tags, who=asking.name
    )
    return TokenAnswer(token=enrolment_token(parts.places, parts.settings, parts.authority, secret).encode())


@router.post("/v1/devices/{device_id}/revoke", status_code=204, tags=["operators"])
def revoke(parts: ServicesOf, asking: Admin, device_id: Annotated[str, Path(pattern=IDENTIFIER.pattern)]) -> None:
    """Put a device out of the fleet and cut its session."""
    revoke_device(parts, device_id, asking.name)


@router.get("/healthz", tags=["health"])
def healthz(parts: ServicesOf, response: Response) -> dict[str, bool]:
    """Tell whether database and broker are there; 503 when one is not."""
    with parts.database.read() as session:
        session.connection()
    connected = parts.session.connected
    response.status_code = 200 if connected else 503
    return {"database": True, "broker": connected}


@router.get("/metrics", tags=["health"])
def metrics(parts: ServicesOf, _asking: Viewer) -> Response:
    """Return Prometheus figures; scrape with a viewer's token."""
    return Response(parts.metrics.render(), media_type=CONTENT_TYPE)
