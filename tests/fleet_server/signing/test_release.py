import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from tuf.api.metadata import Metadata, Root, Targets

from fleet_server.signing.errors import (
    ClockBehindError,
    CounterBackError,
    NotSignedError,
    PublishError,
    TargetChangedError,
    VersionBackError,
)
from fleet_server.signing.release import (
    ReleaseSigners,
    Repository,
    add_signature,
    add_target,
    create_release,
    extend_targets,
    next_counter,
    publish,
    renew,
)
from fleet_server.signing.roots import RoleKeys, next_root, roles_of
from ommatid.contract.trust.facts import ReleaseFacts
from tests.support.repository import TODAY, Fleet, new_key


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(root_keys=3, root_threshold=2)


def signed(fleet: Fleet, version: str, counter: int, *, model: str = "detector", key: object = None) -> bytes:
    facts = ReleaseFacts(model=model, version=version, target="fp32", hardware=("aarch64",), release_counter=counter)
    return add_target(
        fleet.release.targets,
        [key or fleet.signers.targets[0]],  # type: ignore[list-item] # a signer, if it is given
        f"{model}/{model}-{version}-fp32.bundle",
        length=3,
        sha256="a" * 64,
        facts=facts,
        now=TODAY,
    )


def published(fleet: Fleet, targets: bytes) -> Repository:
    return publish(fleet.release, targets, fleet.signers.snapshot, fleet.signers.timestamp, TODAY)


def test_a_release_is_published_with_everything_one_version_newer(fleet: Fleet) -> None:
    after = published(fleet, signed(fleet, "1", 1))

    assert set(after.files()) == {"1.root.json", "2.targets.json", "2.snapshot.json", "timestamp.json"}
    assert next_counter(after.targets, "detector") == 2
    assert next_counter(after.targets, "other") == 1


def test_a_counter_that_goes_back_is_refused(fleet: Fleet) -> None:
    fleet.release = published(fleet, signed(fleet, "1", 5))

    for counter in (5, 4, 1):
        with pytest.raises(CounterBackError, match=f"release counter {counter} of model detector goes back; 5"):
            published(fleet, signed(fleet, "2", counter))
    assert published(fleet, signed(fleet, "2", 1, model="other"))


def test_a_release_never_changes(fleet: Fleet) -> None:
    fleet.release = published(fleet, signed(fleet, "1", 1))
    changed = json.loads(extend_targets(fleet.release.targets, [], TODAY))
    entry = next(iter(changed["signed"]["targets"].values()))
    entry["hashes"]["sha256"] = "b" * 64
    forged = add_signature(json.dumps(changed).encode(), fleet.signers.targets[0])

    with pytest.raises(TargetChangedError, match="detector-1-fp32"):
        published(fleet, forged)
    with pytest.raises(TargetChangedError, match="already released"):
        signed(fleet, "1", 2)


def test_a_release_never_goes_away(fleet: Fleet) -> None:
    fleet.release = published(fleet, signed(fleet, "1", 1))
    changed = json.loads(extend_targets(fleet.release.targets, [], TODAY))
    changed["signed"]["targets"] = {}

    with pytest.raises(TargetChangedError, match="changes or drops"):
        published(fleet, add_signature(json.dumps(changed).encode(), fleet.signers.targets[0]))


def test_a_strangers_release_is_refused(fleet: Fleet) -> None:
    with pytest.raises(NotSignedError, match="0/1 keys"):
        published(fleet, signed(fleet, "1", 1, key=new_key()))


def test_every_needed_key_must_sign() -> None:
    fleet = Fleet(targets_threshold=2)
    first, second = fleet.signers.targets
    once = signed(fleet, "1", 1, key=first)

    with pytest.raises(NotSignedError, match="1/2 keys"):
        published(fleet, once)
    with pytest.raises(NotSignedError, match="1/2 keys"):
        published(fleet, add_signature(once, first))
    assert published(fleet, add_signature(once, second))


def test_a_push_that_crossed_another_is_refused(fleet: Fleet) -> None:
    mine, other = signed(fleet, "1", 1), signed(fleet, "2", 1)
    fleet.release = published(fleet, other)

    with pytest.raises(VersionBackError) as caught:
        published(fleet, mine)
    assert caught.value.hint == "someone pushed meanwhile: push again"


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b"\xff", b'{"signatures": [], "signed": {}}'])
def test_garbage_is_refused(fleet: Fleet, content: bytes) -> None:
    with pytest.raises(PublishError):
        published(fleet, content)


def test_another_kind_of_document_is_refused(fleet: Fleet) -> None:
    with pytest.raises(PublishError, match="a root document where targets is needed"):
        published(fleet, fleet.release.root)


def test_a_release_without_facts_is_refused(fleet: Fleet) -> None:
    changed = json.loads(signed(fleet, "1", 1))
    for facts in ({}, {"model": "detector"}, {"model": "detector", "release_counter": True}, {"model": 1}):
        next(iter(changed["signed"]["targets"].values()))["custom"] = facts
        with pytest.raises(PublishError):
            published(fleet, add_signature(json.dumps(changed).encode(), fleet.signers.targets[0]))


def test_renewal_changes_no_release(fleet: Fleet) -> None:
    later = renew(fleet.release, fleet.signers.snapshot, fleet.signers.timestamp, TODAY + timedelta(days=20))

    assert (later.root, later.targets) == (fleet.release.root, fleet.release.targets)
    expiry = Metadata.from_bytes(later.timestamp).signed.expires
    assert expiry == TODAY + timedelta(days=50)


def test_releases_are_vouched_for_longer_than_freshness(fleet: Fleet) -> None:
    targets: Targets = Metadata[Targets].from_bytes(fleet.release.targets).signed
    root: Root = Metadata[Root].from_bytes(fleet.release.root).signed

    assert targets.expires == TODAY + timedelta(days=365)
    assert root.expires > targets.expires
    assert root.consistent_snapshot


def test_a_clock_in_1970_signs_nothing() -> None:
    signers = ReleaseSigners([new_key()], [new_key()], new_key(), new_key())

    with pytest.raises(ClockBehindError, match="1970-01-01") as caught:
        create_release(signers, datetime(1970, 1, 1, tzinfo=UTC))
    assert "set the clock" in str(caught.value.hint)


# Roots.


def test_a_root_needs_its_threshold() -> None:
    signers = ReleaseSigners([new_key()], [new_key()], new_key(), new_key(), root_threshold=2)

    with pytest.raises(NotSignedError):
        create_release(signers, TODAY)


def test_a_new_root_is_signed_by_old_and_new_keys(fleet: Fleet) -> None:
    old = list(fleet.signers.root)
    new = [new_key() for _ in range(3)]
    roles = roles_of(fleet.release.root) | {"root": RoleKeys([key.public_key for key in new], 2)}

    for signers in (old, new, [old[0], *new], [*old, new[0]]):
        with pytest.raises(NotSignedError):
            next_root(fleet.release.root, roles, signers, TODAY)
    root = next_root(fleet.release.root, roles, [*old[:2], *new[1:]], TODAY)

    assert Metadata.from_bytes(root).signed.version == 2
    assert roles_of(root)["targets"] == roles_of(fleet.release.root)["targets"]


def test_files_are_named_by_their_own_versions(fleet: Fleet) -> None:
    fleet.rotate_release_root()

    assert "2.root.json" in replace(fleet.release).files()
