"""The examples of a deployment say what the commands know: Compose, systemd, the pages; Docker itself is not run."""

from __future__ import annotations

import configparser
import re
import shlex

import click
import pytest
import typer.main
import yaml

from fedmrg_core.commands.command_line import app
from fedmrg_core.paths import REPOSITORY

FOLDER = REPOSITORY / "docs" / "deployment"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
UNITS = sorted(FOLDER.glob("*.service"))
PAGES = [REPOSITORY / "docs" / "deployment.md", FOLDER / "compose.yaml", *UNITS]


def check_command(words: list[str]) -> None:
    """A command of fedmrg with options that exist and all that it asks for; nothing is carried out."""
    command, context = typer.main.get_command(app), None
    rest = list(words)
    while isinstance(command, click.Group):
        context = click.Context(command, parent=context)
        found = command.get_command(context, rest[0])
        assert found is not None, f"fedmrg has no command {rest[0]!r}: {words}"
        command, rest = found, rest[1:]
    command.make_context(command.name, rest, parent=context)


def test_a_wrong_command_would_be_found():
    check_command(["site", "start", "north"])
    for wrong in (["site", "begin", "north"], ["site", "start"], ["site", "start", "north", "--fast"]):
        with pytest.raises((AssertionError, click.UsageError)):
            check_command(wrong)


def test_every_service_of_the_composition_runs_a_command_with_little_power():
    assert set(COMPOSE["services"]) == {"server", "run", "site"}
    for service in COMPOSE["services"].values():
        program, *words = service["command"]
        assert program == "fedmrg"
        check_command(words)
        folder = next(word for word in words if word.startswith("/"))
        assert [volume for volume in service["volumes"] if volume.endswith(f":{folder}")], "its folder is a volume"
        assert service["read_only"] and service["user"] != "0" and service["cap_drop"] == ["ALL"]
    assert (FOLDER / COMPOSE["x-fedmrg"]["build"]["context"]).resolve() == REPOSITORY
    assert (REPOSITORY / COMPOSE["x-fedmrg"]["build"]["dockerfile"]).is_file()
    assert [name for name, service in COMPOSE["services"].items() if "ports" in service] == ["server"]


def test_the_image_copies_what_the_repository_has():
    lines = (FOLDER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "FROM python:3.11-slim" and "USER 1000:1000" in lines
    assert (REPOSITORY / "requirements.lock").is_file() and any("requirements.lock" in line for line in lines)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_every_unit_starts_a_command(unit):
    content = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    content.optionxform = str
    content.read_string(unit.read_text(encoding="utf-8"))
    assert set(content.sections()) == {"Unit", "Service", "Install"}
    program, *words = shlex.split(content["Service"]["ExecStart"])
    assert program.endswith("/fedmrg")
    check_command(words)
    assert content["Service"]["User"] != "root" and content["Service"]["WorkingDirectory"] in {
        content["Service"]["ReadWritePaths"]
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_of_a_page_exists(page):
    text = page.read_text(encoding="utf-8")
    commands = re.findall(r"`(?:[^`\n]*\s)?fedmrg ((?:federation|site) [^`\n]+)`", text)
    assert commands or page.suffix != ".md"
    for command in commands:
        words = shlex.split(command)
        if len(words) > 2:  # two words are the command's name
            check_command(words)
