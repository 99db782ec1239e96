from pathlib import Path

import pytest

from agent.settings import Settings, load_settings, reference
from ommatid.errors import BadInputError

DOCS = Path(__file__).parents[2] / "docs" / "agent.md"


def test_the_reference_in_the_docs_is_fresh() -> None:
    assert DOCS.read_text().endswith(reference()), (
        "run `python -m agent.settings`, and put it at the end of docs/agent.md"
    )


def test_every_setting_says_what_it_means() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("http_port = 1\nwindow_s = 1\nready_s = 1\n")
    monkeypatch.setenv("EDGE_AGENT_HTTP_PORT", "2")
    monkeypatch.setenv("EDGE_AGENT_WINDOW_S", "2")

    settings = load_settings(file, {"http_port": 3, "source": None})

    assert (settings.http_port, settings.window_s, settings.ready_s, settings.threads) == (3, 2.0, 1.0, 1)
    assert settings.source is None


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("http_port = 'x'", "http_port"),
        ("unknown = 1", "unknown"),
        ("= 1", "not readable as TOML"),
        ("threads = 0", "threads"),
    ],
)
def test_a_mistake_in_the_file_names_file_and_setting(tmp_path: Path, content: str, named: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(content)

    with pytest.raises(BadInputError, match=named) as caught:
        load_settings(file, {})

    assert str(file) in str(caught.value)


def test_a_mistake_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HTTP_PORT", "-1")

    with pytest.raises(BadInputError, match="EDGE_AGENT_HTTP_PORT"):
        load_settings(None, {})


def test_a_mistake_on_the_command_line_names_the_flag() -> None:
    with pytest.raises(BadInputError, match="--http-port"):
        load_settings(None, {"http_port": 70000})


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such file"):
        load_settings(tmp_path / "missing.toml", {})


def test_settings_survive_the_way_to_a_child() -> None:
    settings = load_settings(None, {"source": "a.avi", "http_port": 0})

    assert Settings.model_validate(settings.model_dump(mode="json")) == settings
