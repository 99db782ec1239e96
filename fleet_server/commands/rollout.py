"""`fleet rollout`: start, watch, pause, resume and abort."""

import re
from typing import Any, Final

import click
from pydantic import TypeAdapter

from fleet_server.client import FleetClient
from fleet_server.commands.tables import figure, print_table, state, when
from fleet_server.commands.watch import watch
from fleet_server.profile import Station
from fleet_server.rollouts.facts import (
    DEFAULT_MAX_FAILURES,
    DEFAULT_MIN_SUCCESS,
    RolloutState,
)
from fleet_server.rollouts.stages import DEFAULT_STAGES
from fleet_server.rollouts.views import PlanView, RolloutView
from fleet_server.web.formats import outcome, tone
from ommatid.cli import echo_json, examples
from ommatid.errors import OmmatidError
from ommatid.text import printable

UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
SECONDS: Final = re.compile(r"(\d{1,8}(?:\.\d{1,3})?)([smhd]?)")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class RolloutAbortedError(OmmatidError):
    """The rollout that was waited for ended badly."""


class Seconds(click.ParamType[float]):
    """A length of time: 5, 90s, 15m, 1h."""

    name = "time"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        match = SECONDS.fullmatch(str(value))
        if match is None:
            self.fail(f"{value!r} is not a time such as 5, 90s, 15m or 1h", param, ctx)
        return float(match[1]) * UNITS[match[2]]


@click.group(short_help="Start, watch and steer rollouts.")
def rollout() -> None:
    """Bring a release to the devices in stages; a bad one stops by itself and is taken back."""


@rollout.command(
    epilog=examples(
        "fleet rollout start street 2 --dry-run", "fleet rollout start street 2 --stages 1,10%,100% --soak 1h --wait"
    )
)
@click.argument("name")
@click.argument("version")
@click.option("--target", help="One build target; by default each device gets the build for its hardware.")
@click.option("--tag", "tags", multiple=True, help="Only devices with this tag; repeat for more, all must be there.")
@click.option("--stages", default=DEFAULT_STAGES, show_default=True, help="Shares or counts of devices, growing.")
@click.option("--soak", type=Seconds(), default="5m", show_default=True, help="Wait after each stage.")
@click.option(
    "--max-failures", default=DEFAULT_MAX_FAILURES, show_default=True, help="Abort at this count or share of devices."
)
@click.option(
    "--min-success", default=DEFAULT_MIN_SUCCESS, show_default=True, help="Share or count of a stage that must commit."
)
@click.option(
    "--patience",
    type=Seconds(),
    default="15m",
    show_default=True,
    help="Wait for a device that went silent in the middle of its update.",
)
@click.option("--dry-run", is_flag=True, help="Print what it would do, and do nothing.")
@click.option("--wait", is_flag=True, help="Watch until the end; exit 1 when it is aborted.")
@json_option
@click.pass_obj
def start(
    station: Station,
    name: str,
    version: str,
    target: str | None,
    tags: tuple[str, ...],
    stages: str,
    soak: float,
    max_failures: str,
    min_success: str,
    patience: float,
    *,
    dry_run: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Roll out VERSION of the model NAME."""
    request = {"model": name, "version": version, "target": target, "tags": tags, "stages": stages, "soak_s": soak}
    request |= {"max_failures": max_failures, "min_success": min_success, "patience_s": patience}
    with FleetClient(station.profile()) as client:
        if dry_run:
            _show_plan(client.post("/v1/rollouts/plan", request), as_json=as_json)
            return
        view = RolloutView.model_validate(client.post("/v1/rollouts", request))
        for passed in view.not_eligible:
            click.echo(f"{passed.id} is passed over: {printable(passed.reason)}", err=True)
        if wait:
            view = watch(client, view)
    _show(view, as_json=as_json)
    if view.state is RolloutState.ABORTED:
        raise RolloutAbortedError(
            f"rollout {view.id} of {view.model} {view.version} was aborted: {view.reason}",
            hint=f"`fleet rollout status {view.id}` says what each device met",
        )


@rollout.command(epilog=examples("fleet rollout status", "fleet rollout status 3 --json"))
@click.argument("rollout_id", metavar="[ID]", required=False)
@json_option
@click.pass_obj
def status(station: Station, rollout_id: str | None, *, as_json: bool) -> None:
    """Show the rollout ID with each device, or list the newest rollouts."""
    with FleetClient(station.profile()) as client:
        answer = client.get(f"/v1/rollouts/{rollout_id}" if rollout_id else "/v1/rollouts")
    if rollout_id:
        _show(RolloutView.model_validate(answer), as_json=as_json)
    elif as_json:
        echo_json(answer)
    else:
        _list(TypeAdapter(list[RolloutView]).validate_python(answer))


@rollout.command(epilog=examples("fleet rollout pause 3"))
@click.argument("rollout_id", metavar="ID")
@json_option
@click.pass_obj
def pause(station: Station, rollout_id: str, *, as_json: bool) -> None:
    """Offer to no further device; devices that have the offer go on with it."""
    _steer(station, rollout_id, "pause", as_json=as_json)


@rollout.command(epilog=examples("fleet rollout resume 3"))
@click.argument("rollout_id", metavar="ID")
@json_option
@click.pass_obj
def resume(station: Station, rollout_id: str, *, as_json: bool) -> None:
    """Go on after a pause."""
    _steer(station, rollout_id, "resume", as_json=as_json)


@rollout.command(epilog=examples("fleet rollout abort 3"))
@click.argument("rollout_id", metavar="ID")
@json_option
@click.pass_obj
def abort(station: Station, rollout_id: str, *, as_json: bool) -> None:
    """Stop for good, and send every device back to what it ran before; undoes the last finished rollout, too."""
    _steer(station, rollout_id, "abort", as_json=as_json)


def _steer(station: Station, rollout_id: str, step: str, *, as_json: bool) -> None:
    with FleetClient(station.profile()) as client:
        view = RolloutView.model_validate(client.post(f"/v1/rollouts/{rollout_id}/{step}"))
    if as_json:
        echo_json(view)
    else:
        click.echo(f"rollout {view.id} of {view.model} {view.version} is {view.state}", err=True)


def _show(view: RolloutView, *, as_json: bool) -> None:
    if as_json:
        echo_json(view)
        return
    click.echo(f"rollout {view.id}: {view.model} {view.version} is {view.state}, stage {view.stage}/{len(view.stages)}")
    if view.reason:
        click.echo(printable(view.reason))
    if view.state is RolloutState.FINISHED:
        click.echo(printable(outcome(view)))
    rows = [
        (part.id, str(part.stage), state(part.state, tone(part.state)), _why(part.error, part.reason))
        for part in view.devices
    ]
    rows += [(device, "-", state("waiting", "idle"), "") for device in view.waiting if view.state.active]
    rows += [(passed.id, "-", state("not eligible", "idle"), passed.reason) for passed in view.not_eligible]
    print_table(("device", "stage", "state", "why"), rows, numbers=("stage",))


def _list(views: list[RolloutView]) -> None:
    columns = ("id", "model", "version", "state", "stage", "committed", "failed", "started", "reason")
    rows = [
        (
            view.id,
            view.model,
            view.version,
            state(view.state, tone(view.state)),
            f"{view.stage}/{len(view.stages)}",
            figure(sum(stage.committed for stage in view.stages)),
            figure(sum(stage.failed for stage in view.stages)),
            when(view.started_at.isoformat()),
            view.reason or "",
        )
        for view in views
    ]
    print_table(columns, rows, numbers=("committed", "failed"), spare=("started",))
    if not views:
        click.echo("no rollout yet: `fleet rollout start NAME VERSION`", err=True)


def _show_plan(answer: Any, *, as_json: bool) -> None:  # noqa: ANN401 - the API's JSON
    if as_json:
        echo_json(answer)
        return
    view = PlanView.model_validate(answer)
    rows = [
        (str(stage.number), stage.amount, figure(stage.planned), figure(stage.reach), ", ".join(devices[:8]))
        for stage, devices in zip(view.stages, view.devices, strict=True)
    ]
    print_table(("stage", "amount", "adds", "reaches", "devices"), rows, numbers=("stage", "amount", "adds", "reaches"))
    for passed in view.not_eligible:
        click.echo(f"{passed.id} is passed over: {printable(passed.reason)}")


def _why(error: str | None, reason: str | None) -> str:
    return ": ".join(part for part in (error, reason) if part)
