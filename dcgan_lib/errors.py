"""Errors that a user can cause and can mend, and how a program answers them."""

import functools
import sys
from collections.abc import Callable, Sequence

Main = Callable[[Sequence[str] | None], int]


class UserError(ValueError):
    """Report bad input in one sentence: what was expected, what came, what to do.

    The command line prints it as a single line and exits with status 2; everything else
    that goes wrong is a defect and keeps its traceback.
    """


def answers_mistakes(program: str, *, on_interrupt: str = "stopped") -> Callable[[Main], Main]:
    """Make a program's main function answer a mistake in one line: status 2, and 130 for Ctrl-C.

    Parameters
    ----------
    program : str
        What the line begins with.
    on_interrupt : str
        What to say when it is stopped by Ctrl-C.
    """

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def answering(arguments: Sequence[str] | None = None) -> int:
            try:
                return main(arguments)
            except UserError as error:
                print(f"{program}: {error}", file=sys.stderr)
                return 2
            except KeyboardInterrupt:
                print(f"{program}: {on_interrupt}", file=sys.stderr)
                return 130

        return answering

    return decorate
