"""The page with its own engine: WebGPU in headless Chromium, in software. What it saves is what Python renders."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_page import decibel
from installed_browser import NO_CHROMIUM, NO_PLAYWRIGHT, chromium
from page_pictures import drawn_by_python, saved_picture
from pages import WEBGPU, Opened, a_browser

from eugen_nerf.conversion.page_export import page_of
from eugen_nerf.core import load_bundle
from eugen_nerf.web.page_files import write_page

pytest.importorskip("playwright.sync_api", reason=NO_PLAYWRIGHT)
if chromium() is None:
    pytest.skip(NO_CHROMIUM, allow_module_level=True)

BUNDLE = Path(__file__).resolve().parents[1] / "golden" / "bundles" / "rendered"
LEAST_PSNR = 45.0
"""dB between the two images."""


def test_a_page_renders_what_python_renders(tmp_path: Path) -> None:
    field = load_bundle(BUNDLE)
    page, _ = page_of([("a", field), ("b", field)], "two of a kind")
    write_page(page, tmp_path / "page.html")
    with a_browser(*WEBGPU) as browser:
        address = (tmp_path / "page.html").as_uri()
        tab = Opened(browser, address, viewport={"width": 120, "height": 96})
        notice = tab.page.get_by_role("alert")
        tab.page.locator("#picture canvas").or_(notice).first.wait_for(timeout=120_000)
        if notice.is_visible() and "WebGPU" in notice.inner_text():
            pytest.skip(f"this Chromium has no WebGPU in software: {notice.inner_text()}")
        assert not notice.is_visible(), notice.inner_text()
        image = saved_picture(tab)
        assert tab.errors == []
        assert [url for url in tab.requests if not url.startswith(("blob:", "data:"))] == [address]
    expected = drawn_by_python(field, image)
    assert expected.std() > 0.02, "there is something to see"
    assert decibel(image, expected) > LEAST_PSNR
