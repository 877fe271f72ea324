"""Errors a user can act on: each message says what was given, what is allowed and what to do next."""

from __future__ import annotations

import errno
import sys
import threading
from types import TracebackType


class EugenError(ValueError):
    """Base of every error that this project raises on bad input; command line tools print it as one line.

    Examples:
        >>> from eugen_nerf.core import BundleError, ConfigError, EugenError
        >>> issubclass(ConfigError, EugenError), issubclass(BundleError, EugenError), issubclass(EugenError, ValueError)
        (True, True, True)
    """


class ConfigError(EugenError):
    """A setting, or a combination of settings, that describes no valid layer, network or command.

    Examples:
        >>> from eugen_nerf.core import ConfigError, EUGenConfig, EUGenLinear
        >>> try:
        ...     EUGenLinear(8, 16, EUGenConfig(projection="uniform"))
        ... except ConfigError as error:
        ...     print(error)
        projection 'uniform' is unknown; choose one of gaussian, rademacher, orthogonal
    """


class DataError(EugenError):
    """A data set that cannot be used: missing or broken images, bad poses, an empty split."""


class RunError(EugenError):
    """A training run that cannot be loaded or written: missing files, another architecture, no space."""


def report_uncaught_in_one_line() -> None:
    """From now on an `EugenError` that nothing catches ends the process with one line, for programs of others.

    So does a full disk, in any thread: a program's log can fill it as well as a checkpoint. Other exceptions are
    reported as before. Calling it again changes nothing.
    """
    before, before_in_threads = sys.excepthook, threading.excepthook
    if getattr(before, "reports_eugen_errors", False):
        return
    printed: set[str] = set()

    def report(error: BaseException | None) -> bool:
        line = " ".join(str(error).split()) if isinstance(error, EugenError) else full_disk(error)
        if line and line not in printed:  # an error of a thread is raised where its work is waited for, too
            print(f"error: {line}", file=sys.stderr)
            printed.add(line)
        return bool(line)

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if not report(error):
            before(kind, error, traceback)

    def hook_of_threads(arguments: threading.ExceptHookArgs) -> None:
        if not report(arguments.exc_value):
            before_in_threads(arguments)

    hook.reports_eugen_errors = True  # type: ignore[attr-defined]
    sys.excepthook, threading.excepthook = hook, hook_of_threads


def full_disk(error: BaseException | None) -> str:
    """What to say of an error that means a full disk; an empty text for any other."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return ""
    name = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else error.filename
    where = f" ({name})" if name else ""
    return f"{error.strerror}{where}: free some space and start again; what was written whole is still there"
