"""The documentation against the repository: every dependency has its reason, every link leads somewhere."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NO_PYTHON_PACKAGE = {"htmx (vendored)", "Mosquitto (system package)"}


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[; ]", requirement, maxsplit=1)[0] for requirement in requirements}


def test_every_dependency_has_its_line_and_every_line_its_dependency() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \|[^|]+\|[^|]+\|$", page, re.MULTILINE)[1:]
    groups = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]

    named = {name for row in rows for name in row.split(", ")}

    assert named - NO_PYTHON_PACKAGE == set().union(*map(names_of, groups))


def test_every_tool_of_development_is_named_with_its_use() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text().partition("For development:")[2]

    tools = {name.removeprefix("pytest-") for name in names_of(PROJECT["dependency-groups"]["dev"])}

    assert {tool for tool in tools if not re.search(rf"\b{tool}\b", page)} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())

    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []
