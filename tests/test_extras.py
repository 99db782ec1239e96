"""Each extra, installed alone in a fresh environment from its lock, runs its program."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
UV = Path(sys.executable).with_name("uv")


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command without our environment's paths; its output is the failure message."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd), "LANG": "C.UTF-8"}
    environment |= {name: value for name, value in os.environ.items() if name.startswith(("UV_", "PIP_", "SSL_"))}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command}: {result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.mark.parametrize(
    ("extra", "program", "calls", "foreign"),
    [
        ("agent", "edge-agent", [["--help"], ["run", "--help"], ["trust", "--help"]], ["onnx", "torch", "fastapi"]),
        ("optimizer", "optimizer", [["--help"], ["build", "--help"], ["targets"]], ["torch", "fastapi", "paho"]),
        ("server", "fleet", [["--help"], ["init", "--help"]], ["numpy", "cv2", "onnxruntime", "onnx", "torch"]),
    ],
)
def test_an_extra_alone_runs_its_program(
    tmp_path: Path, extra: str, program: str, calls: list[list[str]], foreign: list[str]
) -> None:
    # given: a fresh environment with the locked packages of one extra, and our wheel
    environment = tmp_path / "venv"
    python = environment / "bin" / "python"
    run(UV, "venv", "--quiet", "--python", sys.executable, environment, cwd=tmp_path)
    build = ("build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable)
    run(UV, *build, ROOT, "-o", tmp_path, cwd=tmp_path)
    wheel = next(tmp_path.glob("ommatid-*.whl"))
    locked = ROOT / "requirements" / f"{extra}.txt"
    run(UV, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", locked, cwd=tmp_path)

    # when
    run(UV, "pip", "install", "--quiet", "--python", python, "--no-deps", wheel, cwd=tmp_path)

    # then
    for call in calls:
        assert run(environment / "bin" / program, *call, cwd=tmp_path)
    probe = f"import importlib.util as u; print([n for n in {foreign!r} if u.find_spec(n)])"
    assert run(python, "-c", probe, cwd=tmp_path).strip() == "[]"
