"""Fields of every width in the engine of a page: each share's picture against PyTorch's, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import elastic, looking_at
from engine_page import EnginePage, decibel
from hostile_scenes import changed
from installed_browser import NO_CHROMIUM, NO_PLAYWRIGHT, chromium
from page_pictures import drawn_by_python, saved_picture
from pages import WEBGPU, Opened, a_browser

from eugen_nerf.conversion.page_export import page_of
from eugen_nerf.web.page_files import write_page
from eugen_nerf.web.scene_data import SceneData, scene_data

LEAST_PSNR = 45.0
"""dB between two images of one share."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One with WebGPU in software."""
    pytest.importorskip("playwright.sync_api", reason=NO_PLAYWRIGHT)
    if chromium() is None:
        pytest.skip(NO_CHROMIUM)
    with a_browser(*WEBGPU) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(browser: Any) -> EnginePage:
    return EnginePage(browser.new_page())


def check_pictures(page: EnginePage, kind: str) -> None:
    field = elastic(kind, (1.0, 0.5))
    number = page.load(scene_data(field))
    camera = looking_at(torch.tensor([2.0, 1.0, 1.0]), 24, 20, 0.4 if kind == "moving" else None)
    images = [page.draw([number], camera, shares=[i])[0] for i in range(len(field.shares))]
    for share, image in zip(field.shares, images, strict=True):
        assert decibel(image, field.at_share(share).render(camera).colour.numpy()) > LEAST_PSNR, share
    assert decibel(*images) < LEAST_PSNR - 10, "shares look different"
    again = page.draw([number], camera)[0]
    np.testing.assert_array_equal(again, images[0])


@pytest.mark.parametrize("kind", ["moving", "pyramid", "distance"])
def test_every_share_s_picture_is_what_it_is_in_pytorch(page: EnginePage, kind: str) -> None:
    check_pictures(page, kind)


def test_so_it_is_where_threads_share_tiles(browser: Any) -> None:
    """What a GPU runs; the software adapter of the other tests gives every thread a tile of its own."""
    check_pictures(EnginePage(browser.new_page(), tiles=True), "distance")


def test_two_fields_have_shares_of_their_own(page: EnginePage) -> None:
    field, camera = elastic("frequency"), looking_at(torch.tensor([2.0, 1.0, 1.0]), 24, 20)
    numbers = [page.load(scene_data(field)), page.load(scene_data(field))]
    split = page.draw(numbers, camera, mode="split", shares=[1, 2])[0]
    half, quarter = (field.at_share(share).render(camera).colour.numpy() for share in (0.5, 0.25))
    assert decibel(split[:, :12], half[:, :12]) > LEAST_PSNR
    assert decibel(split[:, 12:], quarter[:, 12:]) > LEAST_PSNR


@pytest.fixture(scope="module")
def data() -> SceneData:
    return scene_data(elastic("frequency"))


def test_other_shares_are_refused(page: EnginePage, data: SceneData) -> None:
    number, camera = page.load(data), looking_at(torch.tensor([2.0, 1.0, 1.0]))
    for share in (3, -1, 0.5, "0", "constructor"):
        with pytest.raises(Exception, match="no such share of its features"):
            page.draw([number], camera, shares=[share])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("info", "shares"), [{}] * 17),
        (("info", "shares"), [{}, {}]),
        (("field", "network", "narrower"), "ab"),
        (("field", "network", "narrower"), []),
        (("field", "network", "narrower", 0, "steps", 0, "phi"), "relu; } @compute fn stolen() {"),
        (("field", "network", "narrower", 1, "steps", 1, "reads"), [7]),
        (("field", "network", "narrower", 1, "outputs", 0, "reads"), 99),
        (("field", "network", "narrower", 0, "steps", 0, "rows"), 5000),
    ],
)
def test_descriptions_of_other_widths_are_refused(page: EnginePage, data: SceneData, path: Any, value: Any) -> None:
    with pytest.raises(Exception, match="This scene cannot be shown"):
        page.load(changed(data, path, value))


def test_a_page_shows_every_share_as_python_renders_it(browser: Any, tmp_path: Path) -> None:
    """By the keyboard, and without a request."""
    field = elastic("frequency")
    page, _ = page_of([("one", field)], "every width")
    write_page(page, tmp_path / "page.html")
    address = (tmp_path / "page.html").as_uri()
    tab = Opened(browser, address, viewport={"width": 900, "height": 120})
    tab.page.locator("#picture canvas").wait_for(timeout=120_000)
    slider = tab.page.get_by_role("slider", name="Features", exact=True)
    slider.focus()
    for share in field.shares:
        narrower = field.at_share(share)
        macs = tab.page.locator("#fields tbody tr", has_text="multiply-adds").locator("td")
        macs.filter(has_text=f"{narrower.multiply_adds():,}").wait_for(timeout=120_000)
        image = saved_picture(tab)
        expected = drawn_by_python(narrower, image)
        assert expected.std() > 0.02, "there is something to see"
        assert decibel(image, expected) > LEAST_PSNR, share
        tab.page.keyboard.press("ArrowLeft")
    assert tab.errors == []
    assert [url for url in tab.requests if not url.startswith(("blob:", "data:"))] == [address]
    tab.page.close()
