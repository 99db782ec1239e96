"""The fleet over HTTP: devices as they are now, and what they measured."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from fleet_server.api.depends import ServicesOf, Viewer
from fleet_server.inventory import DeviceView, list_devices
from fleet_server.telemetry import TelemetryView, summarize

router = APIRouter(tags=["fleet"])


@router.get("/v1/devices")
def devices(parts: ServicesOf, asking: Viewer) -> list[DeviceView]:
    """List the devices with their model, update, frame rate and quality."""
    with parts.database.read() as session:
        return list_devices(session, asking.tenant)


@router.get("/v1/telemetry")
def telemetry(
    parts: ServicesOf, asking: Viewer, minutes: Annotated[float, Query(gt=0, le=366 * 1440)] = 60
) -> list[TelemetryView]:
    """Add up each device's telemetry windows of the last `minutes`."""
    with parts.database.read() as session:
        return summarize(session, asking.tenant, parts.now() - timedelta(minutes=minutes))
