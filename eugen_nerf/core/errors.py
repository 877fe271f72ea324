"""Errors a user can act on: each message says what was given, what is allowed and what to do next."""

from __future__ import annotations


class EugenError(ValueError):
    """Base of every error this project raises on bad input; command line tools print it as one line."""


class ConfigError(EugenError):
    """A setting, or a combination of settings, that describes no valid layer, network or command."""


class DataError(EugenError):
    """A data set that cannot be used: missing or broken images, bad poses, an empty split."""


class RunError(EugenError):
    """A training run that cannot be loaded or written: missing files, another architecture, no space."""
