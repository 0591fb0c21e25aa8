"""The command line ``dcgan``: finds the command, reads its options with tyro, answers mistakes in one sentence."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from dcgan_lib import __version__, commands
from dcgan_lib.commands import Command, Train
from dcgan_lib.config import Recipe, recipe
from dcgan_lib.errors import UserError, answers_mistakes
from dcgan_lib.evaluation.neighbour_command import Neighbours
from dcgan_lib.evaluation.search_command import Search
from dcgan_lib.interpretation.arithmetic_command import Arithmetic
from dcgan_lib.interpretation.forgetting_command import Forget
from dcgan_lib.interpretation.saliency_command import Saliency
from dcgan_lib.interpretation.turn_command import Turn
from dcgan_lib.interpretation.walk_command import Walk
from dcgan_lib.widgets.export_command import Export

COMMANDS: dict[str, type[Command]] = commands.COMMANDS | {
    "neighbours": Neighbours,
    "search": Search,
    "walk": Walk,
    "arithmetic": Arithmetic,
    "turn": Turn,
    "saliency": Saliency,
    "forget": Forget,
    "export": Export,
}


def usage() -> str:
    """Return the front page of the command line."""
    lines = [
        f"dcgan {__version__}: train, measure and look inside deep convolutional GANs",
        "",
        "usage: dcgan COMMAND ...",
        "",
    ]
    lines += [f"  {name:10} {(kind.__doc__ or '').splitlines()[0]}" for name, kind in COMMANDS.items()]
    lines += ["", "dcgan COMMAND --help lists a command's options. Begin with:", ""]
    lines += ["  dcgan train --recipe rooms --minutes 5       no download: bedrooms that are drawn"]
    lines += ["  dcgan prepare FOLDER --name mine             your own images"]
    lines += ["  dcgan train --recipe faces --set mine        learn to make more of them"]
    return "\n".join(lines)


def parse(arguments: Sequence[str]) -> Command:
    """Turn arguments into a command; a recipe named among them fills in its defaults.

    Raises
    ------
    UserError
        If there is no such command or recipe.
    """
    name, *rest = arguments
    if name not in COMMANDS:
        raise UserError(f"there is no command {name!r}; choose one of: {', '.join(COMMANDS)}")
    options: dict[str, Any] = {"prog": f"dcgan {name}", "args": rest}
    if name == "train":
        chosen = _recipe_in(rest)
        options["default"] = Train(recipe=chosen.name, config=chosen.config)
    return tyro.cli(COMMANDS[name], **options)


def _recipe_in(arguments: Sequence[str]) -> Recipe:
    """Find --recipe before the other options are read, because it is what their defaults come from."""
    name = next(entry.default for entry in dataclasses.fields(Train) if entry.name == "recipe")
    for word, after in zip(arguments, [*arguments[1:], ""], strict=True):  # the last one counts, as with any option
        if word.startswith("--recipe="):
            name = word.partition("=")[2]
        elif word == "--recipe" and after:
            name = after
    return recipe(name)


@answers_mistakes("dcgan", on_interrupt="stopped; nothing half-written is kept")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 2 for the user's mistake, 130 for Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not words or words[0] in ("-h", "--help", "help"):
            print(usage())
        elif words[0] == "--version":
            print(__version__)
        else:
            parse(words).run()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at the end
    return 0


if __name__ == "__main__":
    sys.exit(main())
