"""A browser, and pages in it that must request nothing and complain about nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from installed_browser import NO_CHROMIUM, NO_PLAYWRIGHT, chromium
from pages import Opened, a_browser, written


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    pytest.importorskip("playwright.sync_api", reason=NO_PLAYWRIGHT)
    if chromium() is None:
        pytest.skip(NO_CHROMIUM)
    with a_browser() as browser:
        yield browser


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Opens a page of some fields; at the end, it requested nothing and complained about nothing."""
    tabs: list[Opened] = []

    def opened(fields: list[Any], after: str = "", title: str = "A scene", **options: Any) -> Opened:
        path = tmp_path / f"page-{len(tabs)}.html"
        tab = Opened(browser, written(fields, path, title).as_uri() + after, **options)
        tabs.append(tab)
        return tab

    yield opened
    for tab in tabs:
        assert tab.errors == []
        assert {url for url in tab.requests if not url.startswith(("data:", "blob:"))} <= {tab.page.url.split("#")[0]}
        tab.page.close()
