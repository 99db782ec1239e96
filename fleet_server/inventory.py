"""The devices as operators see them: one row each, from the newest state, hello and offer."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from fleet_server.database.models import Device, Release, RolloutDevice
from fleet_server.rollouts.facts import MemberState
from ommatid.contract.messages import SourceStatus, State, SwapFigures, UpdateState, validate
from ommatid.errors import MessageError

Quality = Literal["ok", "flagged", "learning", "unsupported", "unknown"]
WORST_FIRST: Sequence[Quality] = ("flagged", "unsupported", "learning", "unknown", "ok")


class View(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(frozen=True)


class ModelView(View):
    """A release of a model."""

    name: str
    version: str
    target: str
    digest: str


class FailureView(View):
    """Why the device's newest offer failed."""

    rollout: str
    state: str
    error: str | None
    reason: str | None


class DeviceView(View):
    """One device."""

    id: str
    online: bool
    last_seen: datetime | None
    enrolled_at: datetime
    tags: tuple[str, ...]
    agent: str | None
    arch: str | None
    model: ModelView | None = Field(description="what it runs, by its own word")
    desired: ModelView | None = Field(description="what the director names for it")
    update: str = Field(description="state of the update, as the device tells it")
    failure: FailureView | None
    fps: float | None = Field(description="frames inferred a second, over all sources")
    frames: int
    dropped: int
    p50_ms: float | None
    p99_ms: float | None = Field(description="of the slowest source")
    quality: Quality = Field(description="of the worst source")
    quality_reasons: tuple[str, ...]
    sources: tuple[SourceStatus, ...]
    last_swap: SwapFigures | None
    spool: int = Field(description="reports that the device still keeps")

    @property
    def alarms(self) -> tuple[str, ...]:
        """Return what needs a person: a dead source, flagged images."""
        down = [f"source {source.name} is down" for source in self.sources if source.state == "down"]
        flagged = [f"quality: {', '.join(self.quality_reasons) or 'flagged'}"] if self.quality == "flagged" else []
        return tuple(down + flagged) if self.online else ()


def list_devices(session: Session, tenant: str) -> list[DeviceView]:
    """Return every device of a tenant that is not revoked, by id."""
    newest = aliased(RolloutDevice)
    last_offer = (
        select(newest.rollout_id)
        .where(newest.device_id == Device.id)
        .order_by(newest.rollout_id.desc())
        .limit(1)
        .scalar_subquery()
    )
    rows = session.execute(
        select(Device, Release, RolloutDevice)
        .outerjoin(Release, Release.id == Device.desired_release_id)
        .outerjoin(RolloutDevice, (RolloutDevice.device_id == Device.id) & (RolloutDevice.rollout_id == last_offer))
        .where(Device.tenant == tenant, Device.revoked_at.is_(None))
        .order_by(Device.id)
    )
    return [device_view(device, desired, part) for device, desired, part in rows]


def device_view(device: Device, desired: Release | None, part: RolloutDevice | None) -> DeviceView:
    """Return one device's row."""
    state = _state(device)
    sources = state.sources if state and device.online else ()
    worst = min((source.quality for source in sources), key=WORST_FIRST.index, default="unknown")
    return DeviceView(
        id=device.id,
        online=device.online,
        last_seen=device.last_seen,
        enrolled_at=device.enrolled_at,
        tags=tuple(sorted(device.all_tags)),
        agent=device.agent,
        arch=device.arch,
        model=_running(device),
        desired=None if desired is None else _model(desired),
        update=state.update if state else UpdateState.IDLE,
        failure=_failure(part),
        fps=round(sum(source.fps for source in sources), 2) if sources else None,
        frames=sum(source.frames for source in sources),
        dropped=sum(source.dropped for source in sources),
        p50_ms=max((source.p50_ms for source in sources if source.p50_ms is not None), default=None),
        p99_ms=max((source.p99_ms for source in sources if source.p99_ms is not None), default=None),
        quality=worst,
        quality_reasons=tuple(
            dict.fromkeys(reason for source in sources if source.quality == worst for reason in source.quality_reasons)
        ),
        sources=sources,
        last_swap=state.last_swap if state else None,
        spool=state.spool if state else 0,
    )


def _state(device: Device) -> State | None:
    """Read the stored state; one that another release wrote and we do not understand counts as none."""
    try:
        return None if device.state is None else validate(device.state, State)
    except MessageError:
        return None


def _running(device: Device) -> ModelView | None:
    name, version, target = device.running_model, device.running_version, device.running_target
    if name is None or version is None or target is None or device.running_digest is None:
        return None
    return ModelView(name=name, version=version, target=target, digest=device.running_digest)


def _model(release: Release) -> ModelView:
    return ModelView(name=release.model, version=release.version, target=release.target, digest=release.digest)


def _failure(part: RolloutDevice | None) -> FailureView | None:
    if part is None or not MemberState(part.state).failure:
        return None
    return FailureView(rollout=str(part.rollout_id), state=part.state, error=part.error, reason=part.reason)
