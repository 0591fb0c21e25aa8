"""The base of every command of ``dcgan``: a dataclass whose fields are its options."""

import dataclasses
import shlex
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from tyro.conf import Positional, arg

Device = Annotated[str, arg(metavar="auto|cpu|cuda|cuda:1|mps")]
"""What ``training.loop.choose_device`` takes."""


def local(default: Any) -> Any:
    """Declare an option that changes where or how fast a command runs, but not what it finds.

    Such options are left out of the command line that a result keeps.
    """
    return dataclasses.field(default=default, metadata={"local": True})


@dataclass(frozen=True, kw_only=True)
class Command:
    """Do one job of the command line; a subclass adds its options as fields.

    Commands stand in the layers whose work they do, and are imported when they are asked for.
    """

    verb: ClassVar[str]
    """The word after ``dcgan``; a subclass gives it as ``class Train(Command, verb="train")``."""

    def __init_subclass__(cls, verb: str) -> None:
        cls.verb = verb

    def run(self) -> None:
        """Do it, and print what came of it."""
        raise NotImplementedError

    def command_line(self) -> str:
        """Return the words that give this command again, without defaults and local options."""
        return " ".join(["dcgan", self.verb, *_words(self, self._defaults())])

    def _defaults(self) -> Any:
        """Return the object whose fields hold the defaults; None: those that the fields declare."""
        return None


def _words(options: Any, defaults: Any) -> list[str]:
    positional, named = [], []
    hints = typing.get_type_hints(type(options), include_extras=True)
    for entry in dataclasses.fields(options):
        value = getattr(options, entry.name)
        usual = _default(entry) if defaults is None else getattr(defaults, entry.name)
        if entry.metadata.get("local"):
            continue
        if Positional in typing.get_args(hints[entry.name]):
            positional += _text(value)
        elif dataclasses.is_dataclass(value):
            named += _words(value, usual)
        elif value != usual:
            named += _option(entry.name, value)
    return positional + named


def _default(entry: dataclasses.Field) -> Any:
    if entry.default_factory is not dataclasses.MISSING:
        return entry.default_factory()
    return entry.default


def _option(name: str, value: Any) -> list[str]:
    word = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{word}" if value else f"--no-{word}"]
    return [f"--{word}", *_text(value)]


def _text(value: Any) -> list[str]:
    if isinstance(value, tuple | list):
        return [word for each in value for word in _text(each)]
    if isinstance(value, Path):
        value = value.as_posix()
    if isinstance(value, float) and float(f"{value:g}") == value:
        value = f"{value:g}"
    return [shlex.quote(str(value))]
