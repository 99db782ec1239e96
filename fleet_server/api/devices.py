"""What devices ask for: to join, to be renewed, and what they shall run."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from fleet_server.api.depends import AskingDevice, ServicesOf
from fleet_server.database.models import Device
from fleet_server.errors import ForbiddenError, NotFoundError
from ommatid.contract.enrolment import EnrolAnswer, EnrolRequest, RenewAnswer, RenewRequest, Roots
from ommatid.contract.topics import IDENTIFIER

router = APIRouter(prefix="/v1", tags=["devices"])

DeviceId = Annotated[str, Path(pattern=IDENTIFIER.pattern)]


@router.get("/enrol/ca")
def ca(parts: ServicesOf) -> Response:
    """Return the fleet CA; the enrolment token carries its digest."""
    return Response(parts.authority.pem, media_type="application/x-pem-file")


@router.get("/enrol/roots")
def roots(parts: ServicesOf) -> Roots:
    """Return both pinned roots; the enrolment token carries their digests."""
    metadata = parts.places.metadata
    return Roots(
        release=(metadata / "release" / "1.root.json").read_text(),
        director=(metadata / "director" / "1.root.json").read_text(),
    )


@router.post("/enrol")
def enrol(parts: ServicesOf, request: EnrolRequest) -> EnrolAnswer:
    """Take a device in by its one-time token."""
    answer = parts.enrolment.enrol(request)
    parts.changes.notify()
    return answer


@router.post("/renew")
def renew(parts: ServicesOf, request: RenewRequest) -> RenewAnswer:
    """Give a device a new certificate, on proof of its old key."""
    return parts.enrolment.renew(request)


@router.get("/director/{device_id}.json")
def director(parts: ServicesOf, asking: AskingDevice, device_id: DeviceId) -> Response:
    """Return what a device shall run: the same bytes as on its MQTT topic."""
    if asking.id != device_id:
        raise ForbiddenError(f"{asking.id} may not read what {device_id} shall run")
    with parts.database.read() as session:
        row = session.get(Device, device_id)
    if row is None or row.desired_document is None:
        raise NotFoundError(f"nothing is decided for {device_id} yet")
    return Response(row.desired_document, media_type="application/json")
