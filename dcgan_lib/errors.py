"""Errors that a user can cause and mend, the checks that find them, and a program's answer."""

import errno
import functools
import math
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""What a disk answers that is full, or not to be written on."""

Main = Callable[[Sequence[str] | None], int]


class UserError(ValueError):
    """Report bad input in one sentence: what was expected, what came, what to do.

    The command line prints it as a single line and exits with status 2; everything else
    that goes wrong is a defect and keeps its traceback.
    """


class HeldElsewhereError(UserError):
    """Another process works on the same file or folder."""


class StoppedElsewhereError(UserError):
    """Another process of the same run reports what is wrong, so this one ends without a word."""


def require(holds: bool, what: str, got: Any, allowed: str) -> None:
    """Refuse a value, naming it and what is allowed, unless the condition holds."""
    if not holds:
        raise UserError(f"{what} must be {allowed}, but it is {got!r}")


def check_choices(config: Any) -> None:
    """Refuse a dataclass with a value outside the ``Literal`` that its field declares."""
    for name, hint in typing.get_type_hints(type(config)).items():
        if typing.get_origin(hint) is Literal:
            value, allowed = getattr(config, name), typing.get_args(hint)
            require(value in allowed, name, value, f"one of {list(allowed)}")


def check_number(config: Any, name: str, low: float, high: float = math.inf) -> None:
    """Refuse a field that is no number, or no whole one if so declared, or outside low to high."""
    value, declared = getattr(config, name), type(config).__dataclass_fields__[name].type
    kinds = int if declared in (int, int | None) else int | float
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    allowed = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
    if kinds is int and not is_number:
        allowed = f"a whole number, {allowed}"
    require(is_number and low <= value <= high, name, value, allowed)


def check_numbers(config: Any, low: float, *names: str) -> None:
    """Refuse each field that is no number, or one below low."""
    for name in names:
        check_number(config, name, low)


def answers_mistakes(program: str, *, on_interrupt: str = "stopped") -> Callable[[Main], Main]:
    """Make a main function answer a mistake, or a full disk, in one line: status 2; 130: Ctrl-C."""

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def answering(arguments: Sequence[str] | None = None) -> int:
            try:
                return main(arguments)
            except StoppedElsewhereError:
                return 2
            except UserError as error:
                print(f"{program}: {error}", file=sys.stderr)
                return 2
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                where = f" {error.filename}" if error.filename else ""
                print(
                    f"{program}: cannot write{where} ({error.strerror}): make room or choose "
                    "another folder, and run this again; what was finished is kept",
                    file=sys.stderr,
                )
                return 2
            except KeyboardInterrupt:
                print(f"{program}: {on_interrupt}", file=sys.stderr)
                return 130

        return answering

    return decorate
