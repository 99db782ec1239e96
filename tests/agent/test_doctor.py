import json
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.doctor import examine
from agent.settings import load_settings
from agent.standalone import check_runtime
from ommatid.disk import RealDisk
from tests.support.clock import HandClock
from tests.support.fleet_server import FleetServer
from tests.support.loops import make_video
from tests.support.programs import call


@pytest.mark.parametrize(("name", "package"), [("onnx", "onnxruntime"), ("tflite", "ai-edge-litert")])
def test_each_runtime_really_runs_a_model(name: str, package: str) -> None:
    assert check_runtime(name).startswith(package)


def test_a_healthy_member_passes_every_check(fleet: FleetServer, state_dir: Path, tmp_path: Path) -> None:
    call("edge-agent", "enroll", "--token-file", "-", "--state-dir", state_dir, stdin=fleet.token().encode())
    settings = load_settings(None, {"state_dir": state_dir, "source": str(make_video(tmp_path / "v.avi"))})

    checks = {check.name: check for check in examine(settings, RealDisk(), SystemClock())}
    in_1970 = {check.name: check for check in examine(settings, RealDisk(), HandClock(wall=10.0))}

    assert {check.verdict for name, check in checks.items() if name != "model"} == {"ok"}
    assert checks["model"].text == "no model yet"
    assert in_1970["clock"].verdict == "warn"
    assert in_1970["broker"].verdict == "ok"


def test_a_revoked_member_is_told_so(fleet: FleetServer, state_dir: Path) -> None:
    options = ("--device", "cam-revoked", "--state-dir", state_dir)
    call("edge-agent", "enroll", "--token-file", "-", *options, stdin=fleet.token().encode())
    fleet.call("revoke", "cam-revoked")
    settings = load_settings(None, {"state_dir": state_dir})

    checks = {check.name: check for check in examine(settings, RealDisk(), SystemClock())}

    assert (checks["server"].verdict, checks["broker"].verdict) == ("fail", "fail")
    assert "refuses cam-revoked: it was revoked" in checks["server"].text
    assert "new token" in str(checks["server"].hint)


def test_what_is_broken_is_named_and_the_exit_code_is_one(tmp_path: Path) -> None:
    arguments = ("--state-dir", tmp_path / "missing", "--source", tmp_path / "missing.avi", "--json")

    result = call("edge-agent", "doctor", *arguments, expect=1)

    verdicts = {check["name"]: check["verdict"] for check in json.loads(result.stdout)}
    assert verdicts["state directory"] == "fail"
    assert verdicts["source"] == "fail"
    assert verdicts["runtime onnx"] == "ok"
    assert verdicts["identity"] == "warn"
