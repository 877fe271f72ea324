"""Errors a user can act on: each message says what was given, what is allowed and what to do next."""

from __future__ import annotations

import sys
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

    Other exceptions are reported as before. Calling it again changes nothing.
    """
    before = sys.excepthook
    if getattr(before, "reports_eugen_errors", False):
        return

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, EugenError):
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        else:
            before(kind, error, traceback)

    hook.reports_eugen_errors = True  # type: ignore[attr-defined]
    sys.excepthook = hook
