"""`--help` is where a person looks first: each command shows lines to copy, and they are true."""

import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from agent.cli import cli as edge_agent
from fleet_server.cli import fleet
from ommatid.cli import Group
from optimizer.cli import cli as optimizer

PROGRAMS = {"edge-agent": edge_agent, "fleet": fleet, "optimizer": optimizer}


def commands(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


EVERY = [pair for name, program in PROGRAMS.items() for pair in commands(program, (name,))]


def example_lines(command: click.Command) -> list[str]:
    text = (command.epilog or "").replace("\\\n", " ")
    return [line.strip() for line in text.splitlines()[2:]]


@pytest.mark.parametrize(("path", "command"), EVERY, ids=[" ".join(path) for path, _ in EVERY])
def test_every_command_shows_examples_that_parse(path: tuple[str, ...], command: click.Command) -> None:
    # given the examples at the end of a command's help
    lines = example_lines(command)
    assert lines

    for line in lines:
        part = next(each for each in line.split("|") if path[0] in shlex.split(each))
        words = shlex.split(part)
        own = words[words.index(path[0]) + 1 :]

        # when its options are read, and nothing is done
        result = CliRunner().invoke(PROGRAMS[path[0]], [*own, "--help"], prog_name=path[0])

        # then every one of them is known, and it is this very command that answers
        assert result.exit_code == 0, result.output
        assert f"Usage: {' '.join(path)} " in result.output


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_overview_cuts_no_sentence(name: str) -> None:
    # given a program
    program = PROGRAMS[name]
    assert isinstance(program, Group)

    # when its help is asked for on a terminal of 80 columns
    text = program.get_help(click.Context(program, info_name=name, terminal_width=80))

    # then no command's line ends in an ellipsis
    assert "..." not in text.partition("Commands:")[2]
