"""What every command line tool of this package shares."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from rich.console import Console

from eugen_nerf.core.errors import EugenError


def run_cli(function: Callable[[], None]) -> None:
    """Runs a command, turning its errors into what a shell expects.

    An `EugenError` is printed to stderr as one line "error: ..." and exits with 1; Ctrl-C exits with 130. Any other
    exception is a defect of ours and keeps its traceback.

    Arguments:
        function: the command; parsing its arguments inside is fine, tyro exits with 2 by itself.
    """
    try:
        function()
    except EugenError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def print_lines(console: Console, lines: Mapping[str, object]) -> None:
    """Prints what to look at or type next, one unwrapped line each, so that paths and commands can be copied."""
    width = max(map(len, lines)) + 2
    for what, line in lines.items():
        console.print(f"{what + ':':{width}}{line}", markup=False, highlight=False, soft_wrap=True)
