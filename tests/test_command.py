"""A command's options are its settings, and its command line gives them back."""

import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from tyro.conf import Positional

from dcgan_lib.cli import COMMANDS, find_command, parse, usage
from dcgan_lib.command import Command, local
from dcgan_lib.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Paint(Command, verb="paint"):
    """Paint."""

    what: Positional[str]
    """A picture."""
    sizes: tuple[int, ...] = ()
    """Sides."""
    rate: float = 1e-4
    """A rate."""
    whole: bool = True
    """All of it."""
    place: Path | None = None
    """Where."""
    threads: int | None = local(None)
    """Changes nothing."""


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "dcgan paint sky"),
        ({"threads": 4}, "dcgan paint sky"),
        ({"sizes": (1, 2), "rate": 5e-5}, "dcgan paint sky --sizes 1 2 --rate 5e-05"),
        ({"rate": 17.0}, "dcgan paint sky --rate 17"),
        ({"rate": 0.123456789}, "dcgan paint sky --rate 0.123456789"),
        ({"whole": False, "place": Path("a b")}, "dcgan paint sky --no-whole --place 'a b'"),
    ],
)
def test_the_line_holds_what_changes_the_result(options, line):
    assert Paint(what="sky", **options).command_line() == line


def test_a_recipe_s_own_settings_are_not_repeated():
    words = "train --recipe rooms --steps 7 --base-width 8 --run-dir somewhere --threads 1"
    line = parse(words.split()).command_line()
    assert line == "dcgan train --recipe rooms --base-width 8 --steps 7"
    assert parse(shlex.split(line)[1:]).config == parse(words.split()).config


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_command_is_where_the_registry_says(verb):
    kind = find_command(verb)
    assert issubclass(kind, Command) and kind.verb == verb and kind.__doc__
    assert f"\n  {verb} " in usage()


def test_a_command_that_does_not_exist_is_answered_with_those_that_do():
    with pytest.raises(UserError, match="choose one of: prepare, train"):
        parse(["paint"])
