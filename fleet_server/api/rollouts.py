"""Rollouts over HTTP: plan, start, look, pause, resume, abort."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from fleet_server.access import Operator
from fleet_server.api.depends import ServicesOf, Steerer, Viewer
from fleet_server.rollouts.desk import RolloutDesk
from fleet_server.rollouts.views import PlanView, RolloutRequest, RolloutView
from fleet_server.services import Services

router = APIRouter(tags=["rollouts"])

RolloutId = Annotated[str, Path(max_length=20)]


def desk_of(parts: Services, asking: Operator) -> RolloutDesk:
    """Return the rollouts that an operator sees."""
    return RolloutDesk(parts.database, parts.director, parts.changes, parts.now, asking.tenant, asking.name)


@router.post("/v1/rollouts/plan")
def plan(parts: ServicesOf, asking: Viewer, request: RolloutRequest) -> PlanView:
    """Say what a rollout would do to the fleet as it is now, and change nothing."""
    return desk_of(parts, asking).plan(request)


@router.post("/v1/rollouts", status_code=201)
def start(parts: ServicesOf, asking: Steerer, request: RolloutRequest) -> RolloutView:
    """Begin a rollout."""
    return desk_of(parts, asking).start(request)


@router.get("/v1/rollouts")
def every(parts: ServicesOf, asking: Viewer, limit: Annotated[int, Query(ge=1, le=1000)] = 20) -> list[RolloutView]:
    """List the rollouts, the newest first."""
    return desk_of(parts, asking).every(limit)


@router.get("/v1/rollouts/{rollout_id}")
def status(parts: ServicesOf, asking: Viewer, rollout_id: RolloutId) -> RolloutView:
    """Show one rollout."""
    return desk_of(parts, asking).status(rollout_id)


@router.post("/v1/rollouts/{rollout_id}/pause")
def pause(parts: ServicesOf, asking: Steerer, rollout_id: RolloutId) -> RolloutView:
    """Offer to no further device; those with the offer go on."""
    return desk_of(parts, asking).pause(rollout_id)


@router.post("/v1/rollouts/{rollout_id}/resume")
def resume(parts: ServicesOf, asking: Steerer, rollout_id: RolloutId) -> RolloutView:
    """Go on after a pause."""
    return desk_of(parts, asking).resume(rollout_id)


@router.post("/v1/rollouts/{rollout_id}/abort")
def abort(parts: ServicesOf, asking: Steerer, rollout_id: RolloutId) -> RolloutView:
    """Stop for good and send the devices back to what they ran."""
    return desk_of(parts, asking).abort(rollout_id)
