"""Commands in the documents exist, and the documents tell every flag."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from kilograd import cli

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
_BLOCK = re.compile(r"^```(?:bash)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
APP = typer.main.get_command(cli.app)
# Typer brings click along under a name of its own, or uses the one that is installed.
USAGE_ERROR: Any = typer.BadParameter.__base__


def lines(document: Path) -> list[str]:
    """Every `kilograd` command in a block of shell commands, whether the tests run it or not."""
    blocks = _BLOCK.findall(document.read_text(encoding="utf-8"))
    joined = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in joined if line.startswith("kilograd ")]


def leaves(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every command with its path, groups left out."""
    if hasattr(command, "commands"):
        for name, member in command.commands.items():
            yield from leaves(member, f"{path} {name}".strip())
    else:
        yield path, command


def parse(line: str) -> None:
    """Parse a command line without running it; raises a usage error."""
    words, command = shlex.split(line, comments=True)[1:], APP
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            raise USAGE_ERROR(f"no command {words[0]}")
        command, words = command.commands[words[0]], words[1:]
    if not hasattr(command, "commands"):
        command.make_context("kilograd", words)


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if lines(d)], ids=lambda d: d.name)
def test_commands_exist(document: Path):
    for line in lines(document):
        parse(line)


def test_a_wrong_command_would_be_found():
    for line in ("kilograd compil x", "kilograd compile x --device", "kilograd report --cnt"):
        with pytest.raises(USAGE_ERROR):
            parse(line)


def test_examples_of_the_help_exist():
    for path, command in leaves(APP):
        examples = re.findall(r"Example: (kilograd .*)", command.help or "")
        assert examples, f"{path} has no example"
        for example in examples:
            parse(example)


def test_the_reference_tells_every_flag():
    text = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    for path, command in leaves(APP):
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                flag = max(parameter.opts, key=len)
                assert f"{flag}" in text, f"docs/options.md has no {flag} of {path}"
