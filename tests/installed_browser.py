"""The Chromium that tests of pages and of the viewer start, where there is one."""

from __future__ import annotations

import shutil

NO_CHROMIUM = "no Chromium here: apt-get install chromium"
NO_PLAYWRIGHT = "Playwright is not installed: pip install -e '.[dev]'"
MILLISECONDS = 90_000
"""That a test waits for what a page is expected to do, at most: other tests run beside it."""


def chromium() -> str | None:
    """Path of a Chromium that is installed."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
