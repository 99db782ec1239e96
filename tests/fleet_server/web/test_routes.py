"""The page's routes without a browser: who may do what, and what the headers promise."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx import Client

from fleet_server.web.page import COOKIE
from tests.support.page_server import OPERATOR, add_operator, page_server
from tests.support.small_fleet import SmallFleet, histogram, reference


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[SmallFleet]:
    fleet = SmallFleet(tmp_path)
    fleet.push("1")
    fleet.enrol("cam-a")
    yield fleet
    fleet.database.close()


@pytest.fixture
def client(tmp_path: Path, fleet: SmallFleet) -> Iterator[Client]:
    with page_server(tmp_path, fleet) as server:
        trust = ssl.create_default_context(cafile=str(tmp_path / "authority" / "ca.crt"))
        with Client(base_url=server.url, verify=trust, trust_env=False) as client:
            yield client


def as_operator(client: Client) -> dict[str, str]:
    """Return headers of the API, and let the client carry the page's cookie."""
    client.cookies.set(COOKIE, OPERATOR)
    return {"Authorization": f"Bearer {OPERATOR}"}


def test_strangers_are_sent_to_the_login_and_see_nothing(client: Client) -> None:
    assert client.get("/").headers["location"] == "/login"
    assert client.get("/v1/stream/page").status_code == 401
    assert client.post("/page/rollouts/1/abort", headers={"HX-Request": "true"}).status_code == 401
    assert client.get("/v1/devices").status_code == 401


def test_the_session_cookie_stays_away_from_scripts_and_other_sites(client: Client, fleet: SmallFleet) -> None:
    answer = client.post("/login", data={"token": OPERATOR})

    cookie = answer.headers["set-cookie"]
    assert answer.status_code == 303
    assert all(word in cookie for word in ("__Host-", "HttpOnly", "Secure", "SameSite=strict", "Path=/"))


def test_the_page_forbids_everything_from_elsewhere(client: Client, fleet: SmallFleet) -> None:
    as_operator(client)

    answer = client.get("/")

    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert "http://" not in answer.text.replace("http://www.w3.org", "")
    assert " style=" not in answer.text


def test_steering_needs_the_page_itself_and_the_role(client: Client, fleet: SmallFleet) -> None:
    # given
    fleet.start("1")
    as_operator(client)

    # then: a form on another site cannot set this header
    assert client.post("/page/rollouts/1/pause").status_code == 403
    assert client.post("/page/rollouts/1/pause", headers={"HX-Request": "true"}).status_code == 204

    # when
    client.cookies.clear()
    client.cookies.set(COOKIE, add_operator(fleet, "vera", "viewer"))

    # then
    assert client.post("/page/rollouts/1/resume", headers={"HX-Request": "true"}).status_code == 403
    assert fleet.desk.status("1").state == "paused"


@pytest.mark.parametrize("name", ["../page.py", "VENDORED.md", "vendor/LICENSE-htmx", "..%2f..%2fcli.py", ""])
def test_nothing_but_the_pages_files_is_served(client: Client, name: str) -> None:
    assert client.get(f"/static/{name}").status_code == 404


def test_a_rollout_over_http_from_plan_to_abort(client: Client, fleet: SmallFleet) -> None:
    # given
    api = as_operator(client)
    request = {"model": "detector", "version": "1", "stages": "100%", "soak_s": 0}

    # when
    planned = client.post("/v1/rollouts/plan", json=request, headers=api).json()
    started = client.post("/v1/rollouts", json=request, headers=api)
    second = client.post("/v1/rollouts", json=request, headers=api)
    paused = client.post("/v1/rollouts/1/pause", headers=api).json()
    aborted = client.post("/v1/rollouts/1/abort", headers=api).json()

    # then
    assert planned["devices"] == [["cam-a"]]
    assert (started.status_code, started.json()["id"]) == (201, "1")
    assert (second.status_code, second.json()["title"]) == (409, "ConflictError")
    assert paused["state"] == "paused"
    assert (aborted["state"], aborted["reason"]) == ("aborted", "aborted by anna")
    assert client.post("/v1/rollouts/1/resume", headers=api).status_code == 409
    assert [one["state"] for one in client.get("/v1/rollouts", headers=api).json()] == ["aborted"]


@pytest.mark.parametrize("rollout", ["9", "0", "x", "-1", "99999999999999999999", "1e3"])
def test_a_rollout_that_is_not_there_is_not_found(client: Client, fleet: SmallFleet, rollout: str) -> None:
    assert client.get(f"/v1/rollouts/{rollout}", headers=as_operator(client)).status_code == 404


@pytest.mark.parametrize(
    ("field", "value"), [("stages", "0%"), ("max_failures", "many"), ("soak_s", -1), ("model", "none"), ("bogus", 1)]
)
def test_a_senseless_rollout_is_refused(client: Client, fleet: SmallFleet, field: str, value: object) -> None:
    request = {"model": "detector", "version": "1", field: value}

    answer = client.post("/v1/rollouts", json=request, headers=as_operator(client))

    assert answer.status_code in {400, 404, 422}
    assert answer.json()["detail"]


def test_devices_are_listed_with_what_runs_and_what_failed(client: Client, fleet: SmallFleet) -> None:
    # given
    fleet.start("1")
    fleet.runner.tick()
    fleet.refuse("cam-a", "SignatureError", "signed by a stranger")
    fleet.show("cam-a", model=reference("1"), update="refused")
    fleet.runner.tick()

    # when
    (device,) = client.get("/v1/devices", headers=as_operator(client)).json()

    # then
    assert (device["id"], device["online"], device["model"]["version"], device["fps"]) == ("cam-a", True, "1", 14.98)
    assert device["failure"]["error"] == "SignatureError"


def test_telemetry_windows_add_up_exactly(client: Client, fleet: SmallFleet) -> None:
    # given
    for frames, brightness in ((100, 80.0), (300, 120.0)):
        fleet.window(
            "cam-a",
            source="gate",
            started_at="2027-05-04T10:00:00Z",
            duration_s=20.0,
            frames=frames,
            dropped=2,
            signals={
                "brightness": histogram("lin:0:256", {int(brightness): frames}, brightness),
                "latency_ms": histogram("log:0.1:10000", {100: frames - 1, 200: 1}, 9.0),
            },
            classes={"person": frames},
        )

    # when
    (device,) = client.get("/v1/telemetry", headers=as_operator(client)).json()

    # then
    assert (device["windows"], device["frames"], device["dropped"], device["fps"]) == (2, 400, 4, 10.0)
    assert device["signals"]["brightness"]["mean"] == 110.0
    assert device["signals"]["brightness"]["p50"] == 120.0
    assert device["classes"] == {"person": 400}
    assert 8.9 < device["p50_ms"] <= 9.0


def test_telemetry_of_long_ago_is_left_out(client: Client, fleet: SmallFleet) -> None:
    fleet.window("cam-a", source="g", started_at="x", duration_s=1.0, frames=1, dropped=0)
    fleet.time.pass_s(3700)

    assert client.get("/v1/telemetry", headers=as_operator(client)).json() == []
