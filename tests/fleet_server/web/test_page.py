"""The page in a real browser, over TLS, while the database changes under it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, expect

from fleet_server.database.models import RolloutDevice
from ommatid.contract.messages import SourceStatus, UpdateState
from tests.support.page_server import PageServer, add_operator, page_server
from tests.support.small_fleet import SmallFleet, reference
from tools.screenshot import chromium, log_in


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PageServer]:
    fleet = SmallFleet(tmp_path, real_time=True)
    with page_server(tmp_path, fleet) as server:
        yield server
    fleet.database.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complained of, and every request that left the server."""
    return []


@pytest.fixture
def page(browser: Browser, server: PageServer, complaints: list[str]) -> Iterator[Page]:
    context = browser.new_context(ignore_https_errors=True)
    page = context.new_page()

    def watch(request: Request) -> None:
        if not request.url.startswith((server.url, "data:")):
            complaints.append(f"request to {request.url}")

    page.on("request", watch)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    yield page
    context.close()


def test_a_token_that_nobody_has_is_said_at_once(page: Page, server: PageServer) -> None:
    assert not log_in(page, server.url, "nonsense")
    assert log_in(page, server.url, server.token)


def test_a_device_appears_and_changes_while_one_looks(page: Page, server: PageServer, complaints: list[str]) -> None:
    # given: nothing, and the page says how to begin
    log_in(page, server.url, server.token)
    expect(page.locator(".empty").last).to_contain_text("edge-agent enroll")

    # when
    server.fleet.enrol("cam-a")
    server.fleet.show("cam-a", model=reference("1"))

    # then
    row = page.locator("#device-cam-a")
    expect(row).to_contain_text("online")
    expect(row.locator(".fps")).to_have_text("15.0")
    expect(page.locator("#running")).to_contain_text("detector 1")

    # when
    flagged = SourceStatus(
        name="gate", state="running", fps=7, quality="flagged", quality_reasons=("brightness",), dropped=12
    )
    server.fleet.show("cam-a", model=reference("2"), sources=(flagged,))

    # then
    expect(row.locator(".version")).to_have_text("2")
    expect(row).to_contain_text("flagged")
    expect(row).to_contain_text("brightness")
    expect(page.locator("#alarms")).to_contain_text("1")

    # when
    server.fleet.show("cam-a", online=False)

    # then
    expect(row).to_contain_text("offline")
    assert complaints == []


def test_a_rollout_is_followed_paused_resumed_and_aborted(
    page: Page, server: PageServer, complaints: list[str]
) -> None:
    # given
    fleet = server.fleet
    fleet.push("1")
    fleet.enrol("cam-a", "cam-b")
    rollout = fleet.start("1", stages="1,100%").id
    fleet.runner.tick()
    (canary,) = fleet.parts(rollout)
    log_in(page, server.url, server.token)
    card = page.locator(f"#rollout-{rollout}")
    expect(card).to_contain_text("offered")

    # when the canary goes on, and a person pauses
    fleet.update(canary, "1", UpdateState.PROBATION)
    fleet.runner.tick()
    fleet.changes.notify()
    expect(card).to_contain_text("probation")
    card.get_by_role("button", name="Pause").click()

    # then
    expect(card.locator("header")).to_contain_text("paused")
    assert fleet.desk.status(rollout).state == "paused"

    # when
    card.get_by_role("button", name="Resume").click()

    # then
    expect(card.locator("header")).to_contain_text("running")

    # when: the browser asks whether one is sure
    page.on("dialog", lambda dialog: dialog.accept())
    card.get_by_role("button", name="Abort").click()

    # then
    expect(card).to_contain_text("aborted by anna")
    expect(card.get_by_role("button")).to_have_count(0)
    assert complaints == []


def test_an_aborted_rollout_says_what_each_device_met(page: Page, server: PageServer) -> None:
    # given
    fleet = server.fleet
    fleet.push("1")
    fleet.enrol("cam-a")
    fleet.start("1")
    fleet.runner.tick()

    # when
    fleet.update("cam-a", "1", UpdateState.REFUSED, error="AgreementError", reason="agreement <0.4>")
    fleet.runner.tick()
    log_in(page, server.url, server.token)

    # then: a device's words are text, never markup
    expect(page.locator("#rollout-1")).to_contain_text("AgreementError agreement <0.4>")
    expect(page.locator("#device-cam-a")).to_contain_text("refused")


@pytest.mark.parametrize("width", [320, 390, 768, 1240])
def test_nothing_is_wider_than_the_screen(browser: Browser, server: PageServer, width: int) -> None:
    # given
    fleet = server.fleet
    fleet.push("1")
    fleet.push("2")
    fleet.enrol("cam-a", "cam-b", "camera-with-a-name-that-is-as-long-as-a-name-may-be-in-a-fleet", "x")
    fleet.start("1", stages="1,2,100%")
    fleet.runner.tick()
    unsupported = SourceStatus(
        name="gate", state="down", quality="unsupported", quality_reasons=("resolution", "view"), dropped=1_234_567
    )
    fleet.show("cam-a", model=reference("1"), sources=(unsupported,), update="rolled_back")
    context = browser.new_context(ignore_https_errors=True, viewport={"width": width, "height": 800})
    page = context.new_page()

    # when
    log_in(page, server.url, server.token)

    # then
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    beyond = "[...document.querySelectorAll('td, .pill, li')].filter(e => e.getBoundingClientRect().right > innerWidth)"
    if width <= 760:  # a table on a wide screen may scroll inside its card
        assert page.evaluate(f"{beyond}.map(e => e.outerHTML)") == []
    context.close()


def test_a_viewer_sees_everything_and_steers_nothing(page: Page, server: PageServer) -> None:
    # given
    server.fleet.push("1")
    server.fleet.enrol("cam-a")
    server.fleet.start("1")

    # when
    log_in(page, server.url, add_operator(server.fleet, "vera", "viewer"))

    # then
    expect(page.locator("#rollout-1")).to_contain_text("running")
    expect(page.locator("#rollout-1 button")).to_have_count(0)


def test_a_wrong_token_is_told_so_and_logging_out_ends_the_session(page: Page, server: PageServer) -> None:
    page.goto(f"{server.url}/")
    page.fill("#token", "guessed")
    page.click("button.primary")
    expect(page.get_by_role("alert")).to_have_text("Nobody has this token.")

    log_in(page, server.url, server.token)
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(f"{server.url}/login")
    page.goto(f"{server.url}/")
    expect(page).to_have_url(f"{server.url}/login")


def test_the_page_says_when_it_lost_the_server_and_comes_back_by_itself(browser: Browser, tmp_path: Path) -> None:
    # given
    before, after = SmallFleet(tmp_path, real_time=True), SmallFleet(tmp_path, real_time=True)
    context = browser.new_context(ignore_https_errors=True)
    page = context.new_page()
    with page_server(tmp_path / "before", before) as server:
        log_in(page, server.url, server.token)

    # when the server is gone
    link = page.locator("#link")

    # then
    expect(link).to_have_text("reconnecting", timeout=20_000)

    # when it comes back
    after.enrol("cam-a")
    with page_server(tmp_path / "after", after, server.port):
        # then
        expect(link).to_have_text("live", timeout=20_000)
        expect(page.locator("#device-cam-a")).to_be_visible()
        context.close()
    before.database.close()
    after.database.close()


def test_old_rollouts_shrink_to_one_line(page: Page, server: PageServer) -> None:
    # given
    fleet = server.fleet
    fleet.push("1")
    fleet.push("2")
    fleet.enrol("cam-a")
    first = fleet.start("1", stages="100%", soak_s=0).id
    fleet.runner.tick()
    fleet.commit("cam-a", "1")
    fleet.runner.tick()
    with fleet.database.write() as session:
        part = session.query(RolloutDevice).one()
        assert part.finished_at is not None
        part.finished_at += timedelta(seconds=90)
    fleet.start("2")

    # when
    log_in(page, server.url, server.token)

    # then
    expect(page.locator(f".history #rollout-{first}")).to_contain_text("1 of 1 device committed, the last 1 min 30 s")
