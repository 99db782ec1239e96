"""The rules against a fleet that does anything in any order."""

from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fleet_server.rollouts.facts import (
    DeviceFacts,
    Member,
    MemberState,
    Policy,
    ReleaseFacts,
    RolloutFacts,
    RolloutState,
    Selection,
    follow,
)
from fleet_server.rollouts.rules import Abort, Action, CompleteStage, Finish, Offer, Pause, SendBack, Settle, advance
from fleet_server.rollouts.stages import parse_amount, parse_stages, quotas
from ommatid.contract.messages import UpdateState

RELEASE = ReleaseFacts(id=2, target="t", digest="b" * 64, hardware=("aarch64",), minimum_agent="0.1")
OLD = "a" * 64


class Fleet(RuleBasedStateMachine):
    """Devices come, go, commit and fail; the rules are asked again and again, and sometimes only half obeyed."""

    def __init__(self) -> None:
        super().__init__()
        self.devices: dict[str, DeviceFacts] = {}
        self.now = 1000.0
        self.fault_free = True

    @initialize(
        stages=st.sampled_from(["1,100%", "5%,25%,100%", "50%", "2,4"]),
        failures=st.sampled_from(["1", "2", "10%", "50%"]),
        count=st.integers(0, 8),
    )
    def begin(self, stages: str, failures: str, count: int) -> None:
        policy = Policy(parse_stages(stages), 5, parse_amount(failures, "-"), patience_s=60)
        self.rollout = RolloutFacts("salt", Selection((RELEASE,)), policy, RolloutState.RUNNING, 0)
        for _ in range(count):
            self.enrol(hello=True)

    @rule(hello=st.booleans())
    def enrol(self, hello: bool) -> None:  # noqa: FBT001 - hypothesis passes it by name
        name = f"d{len(self.devices)}"
        arch, agent = ("aarch64", "0.1.0") if hello else (None, None)
        self.devices[name] = DeviceFacts(name, online=hello, arch=arch, agent=agent, running=OLD)

    @rule(pick=st.randoms(use_true_random=False))
    def toggle_online(self, pick: object) -> None:
        if self.devices:
            name = self._pick(pick, list(self.devices))
            self._change(name, online=not self.devices[name].online)

    @rule(pick=st.randoms(use_true_random=False), state=st.sampled_from(list(UpdateState)))
    def report(self, pick: object, state: UpdateState) -> None:
        members = [device for device in self.devices.values() if device.member]
        if not members:
            return
        device = self._pick(pick, members)
        assert device.member
        after = follow(device.member.state, state)
        if after is device.member.state:
            return
        self.fault_free = self.fault_free and not after.failure
        running = RELEASE.digest if after is MemberState.COMMITTED else OLD if after.failure else device.running
        ended = None if after.pending else self.now
        self._change(device.id, running=running, member=replace(device.member, state=after, ended_at=ended))

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(obeyed=st.integers(0, 3))
    def tick_and_crash(self, obeyed: int) -> None:
        for action in self._advance()[:obeyed]:
            self._apply(action)

    @rule()
    def tick(self) -> None:
        for action in self._advance():
            self._apply(action)

    @precondition(lambda self: self.rollout.state is RolloutState.RUNNING)
    @rule()
    def person_pauses(self) -> None:
        self.rollout = replace(self.rollout, state=RolloutState.PAUSED)

    @precondition(lambda self: self.rollout.state is RolloutState.PAUSED)
    @rule()
    def person_resumes(self) -> None:
        self.rollout = replace(self.rollout, state=RolloutState.RUNNING, watched_from=self.now)

    @precondition(lambda self: self.rollout.state is not RolloutState.ABORTED)
    @rule()
    def person_aborts(self) -> None:
        self.rollout = replace(self.rollout, state=RolloutState.ABORTED)

    @invariant()
    def an_aborted_rollout_ends_with_nobody_assigned(self) -> None:
        if not hasattr(self, "rollout") or self.rollout.state is not RolloutState.ABORTED:
            return
        devices = [replace(one) for one in self.devices.values()]
        for action in advance(self.rollout, devices, self.now):
            assert isinstance(action, SendBack | Settle)
        sent_back = {one.device for one in self._advance() if isinstance(one, SendBack)}
        assert all(device.id in sent_back for device in devices if device.assigned)

    def teardown(self) -> None:
        """Let the world become good: whatever happened, the rollout ends, as it must."""
        if not hasattr(self, "rollout"):
            return
        self.enrol(hello=True)
        for name in self.devices:
            self._change(name, online=True, arch="aarch64", agent="0.1.0")
        if self.rollout.state is RolloutState.PAUSED:
            self.person_resumes()
        for _ in range(200):
            self._everybody_does_as_told()
            self.now += 1
            actions = self._advance()
            for action in actions:
                self._apply(action)
            if not actions and not self.rollout.state.active:
                break
        assert not self.rollout.state.active
        assert self._advance() == ()
        if self.rollout.state is RolloutState.ABORTED:
            assert not any(device.assigned for device in self.devices.values())
        elif self.fault_free:
            members = [device for device in self.devices.values() if device.member]
            assert len(members) >= quotas(self.rollout.policy.stages, len(self.devices))[-1]
            assert all(device.running == RELEASE.digest for device in members)

    def _everybody_does_as_told(self) -> None:
        for device in list(self.devices.values()):
            if device.member and device.member.state.pending:
                member = replace(device.member, state=MemberState.COMMITTED, ended_at=self.now)
                self._change(device.id, running=RELEASE.digest, member=member)
            elif device.member and device.member.state is MemberState.RETURNING:
                self._change(device.id, running=OLD)

    def _advance(self) -> tuple[Action, ...]:
        return advance(self.rollout, list(self.devices.values()), self.now)

    def _apply(self, action: Action) -> None:
        match action:
            case Offer(name, stage, release):
                device = self.devices[name]
                assert device.member is None, "a device is offered a release once"
                assert device.online
                assert self.rollout.state is RolloutState.RUNNING
                assert stage == self.rollout.stage
                member = Member(stage, MemberState.OFFERED, release.digest, self.now)
                self._change(name, assigned=True, member=member)
                reached = sum(one.member is not None for one in self.devices.values())
                assert reached <= quotas(self.rollout.policy.stages, len(self.devices))[stage], "beyond the stage"
            case Settle(name, state):
                self._settle(name, state)
            case SendBack(name):
                member = self.devices[name].member
                assert member
                state = member.state if member.state.failure else MemberState.RETURNING
                self._change(name, assigned=False, member=replace(member, state=state))
            case CompleteStage(stage):
                assert stage == self.rollout.stage
                self.rollout = replace(self.rollout, stage=stage + 1, watched_from=self.now)
            case Pause():
                self.rollout = replace(self.rollout, state=RolloutState.PAUSED)
            case Abort():
                assert not self.fault_free, "nothing failed"
                self.rollout = replace(self.rollout, state=RolloutState.ABORTED)
            case Finish():
                self.rollout = replace(self.rollout, state=RolloutState.FINISHED)

    def _settle(self, name: str, state: MemberState) -> None:
        member = self.devices[name].member
        assert member
        self._change(name, member=replace(member, state=state, ended_at=self.now))

    def _change(self, name: str, **changes: object) -> None:
        self.devices[name] = replace(self.devices[name], **changes)  # type: ignore[arg-type]

    def _pick(self, pick: object, choices: list) -> object:  # type: ignore[type-arg]
        return pick.choice(choices)  # type: ignore[attr-defined]


TestAnyOrder = Fleet.TestCase
TestAnyOrder.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
