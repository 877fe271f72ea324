"""The viewer in a real browser, headless Chromium; without one these tests are left out."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browsing import SOFTWARE_GL, Tab, change, shown_pixels, until, viewing
from installed_browser import MILLISECONDS, NO_CHROMIUM, NO_PLAYWRIGHT, chromium
from PIL import Image

from eugen_nerf.evaluation.images.view_rendering import render_rgb, view_camera
from eugen_nerf.methods.runs.image_metrics import quantise
from eugen_viewer.image_composition import pad_to_aspect
from eugen_viewer.panels.panel_compress import GATHER_JOB, SAVE_JOB
from eugen_viewer.panels.panel_record import FILM_JOB
from eugen_viewer.panels.panel_surface import MESH_JOB
from eugen_viewer.panels.picture_overlay import CLASS
from eugen_viewer.shown_runs import ShownRun, open_run

sync_api = pytest.importorskip("playwright.sync_api", reason=NO_PLAYWRIGHT)
if chromium() is None:
    pytest.skip(NO_CHROMIUM, allow_module_level=True)


DRAG_FRAMES = 4
"""Images of a drag of two seconds at least, of tiny runs in a page that is drawn without a GPU."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=SOFTWARE_GL)
        yield browser
        browser.close()


SELDOM_DRAWN = """
const frame = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (draw) => setTimeout(() => frame(draw), 100);
window.cancelAnimationFrame = clearTimeout;
"""
"""Makes a page wait between its frames: drawn in software, as fast as it can, it takes what the viewer needs."""


def seldom_drawn(browser: Any, width: int, height: int) -> Any:
    """A new page of a size."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(MILLISECONDS)
    page.add_init_script(SELDOM_DRAWN)
    return page


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    page = seldom_drawn(browser, 800, 560)
    yield page
    page.close()


@pytest.fixture(scope="module")
def pair(tiny_dense_run: Path, tiny_eugen_run: Path) -> list[ShownRun]:
    return [open_run(p, n, device="cpu", data=None) for p, n in ((tiny_dense_run, "dense"), (tiny_eugen_run, "eugen"))]


def as_jpeg(image: np.ndarray, quality: int = 95) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def same_within_jpeg(canvas: np.ndarray, image: np.ndarray) -> None:
    """The canvas shows an image, but for what JPEG makes of it and for interpolation between its pixels."""
    error = np.abs(shown_pixels(canvas, image).astype(int) - image).mean()
    allowed = np.abs(as_jpeg(image).astype(int) - image).mean() + 4
    assert error < allowed, f"mean difference {error:.1f} of 255, allowed {allowed:.1f}"


def test_compare_in_a_browser(page: Any, pair: list[ShownRun], tmp_path: Path) -> None:
    with viewing(pair, tmp_path, max_size=20) as viewer:
        tab = Tab(page, viewer)
        tab.fine()
        exact = [quantise(render_rgb(v.run, view_camera(v.run, 0))) for v in pair]
        aspect = tab.session.client.camera.aspect
        split = np.concatenate([exact[0][:, :8], exact[1][:, 8:]], axis=1)
        canvas = tab.canvas()
        same_within_jpeg(canvas, pad_to_aspect(split, aspect))
        assert "test view 0" in tab.numbers
        assert "PSNR, other run" in tab.numbers
        tab.save("compare")

        # the page takes Markdown as a program: what others wrote must be shown as it is
        text = "failed: {a} <b> *c* |d| _e_ [f](g) `h` ~/i"
        viewer.lines.report("some work", 1.0, text)
        page.get_by_text(text).wait_for(timeout=60_000)
        viewer.lines.report("some work", 1.0, "")
        page.get_by_text(text).wait_for(state="detached", timeout=60_000)
        tab.fine()

        tab.drag("Split position", 60)
        until(lambda: viewer.comparison.choice.settings.split > 0.6, "the split moves")
        tab.fine()
        moved = tab.canvas()
        assert change(canvas, moved) > 1
        edge = round(viewer.comparison.choice.settings.split * 16)
        split = np.concatenate([exact[0][:, :edge], exact[1][:, edge:]], axis=1)
        same_within_jpeg(moved, pad_to_aspect(split, aspect))

        tab.choose("View", "right only")
        until(lambda: viewer.comparison.choice.settings.mode == "second", "one run alone is chosen")
        tab.fine()
        same_within_jpeg(tab.canvas(), pad_to_aspect(exact[1], aspect))

        tab.choose("View", "difference")
        until(lambda: viewer.comparison.choice.settings.mode == "difference", "the difference is chosen")
        tab.fine()
        assert viewer.compare_panel.bar.visible
        tab.save("difference")

        # another window, the same view: all of the photograph is visible in it
        page.set_viewport_size({"width": 620, "height": 700})
        until(lambda: abs(tab.session.client.camera.aspect - aspect) > 0.1, "the window's aspect arrives")
        tab.fine()
        assert tab.session.view == 0

        page.mouse.move(60, 300)
        page.mouse.down()
        page.mouse.move(160, 320, steps=5)
        page.mouse.up()
        until(lambda: tab.session.view is None, "the camera leaves the view")
        tab.fine()
        assert "free camera" in tab.numbers
        page.get_by_role("button", name="Go to test view").click()
        until(lambda: tab.session.view == 0, "the camera goes back")
        tab.fine()
        assert "test view 0" in tab.numbers


def test_features_of_a_run_of_every_width(page: Any, tiny_eugen_run: Path, tmp_path: Path) -> None:
    shown = open_run(tiny_eugen_run, "eugen", device="cpu", data=None)
    for field in shown.model.graph_fields().values():
        field.shares = (1.0, 0.5)
    pictures = {}
    for share in shown.shares:
        shown.show_at(share)
        pictures[share] = quantise(render_rgb(shown.run, view_camera(shown.run, 0)))
    shown.show_at(1.0)
    with viewing([shown], tmp_path, max_size=16) as viewer:
        tab = Tab(page, viewer)
        tab.fine()
        aspect, macs = tab.session.client.camera.aspect, shown.costs()[1]
        same_within_jpeg(tab.canvas(), pad_to_aspect(pictures[1.0], aspect))
        tab.choose("Features of eugen", "50 %")
        until(lambda: (shown.costs()[1] or 0) < (macs or 0), "fewer features are evaluated")
        tab.fine()
        same_within_jpeg(tab.canvas(), pad_to_aspect(pictures[0.5], aspect))


def test_the_split_is_dragged_on_the_picture(page: Any, pair: list[ShownRun], tmp_path: Path) -> None:
    """By its line, of one pixel, which is where the slider says; the numbers stand in the picture's corner."""
    with viewing(pair, tmp_path, max_size=20) as viewer:
        tab = Tab(page, viewer)
        tab.fine()
        line = page.locator(f".{CLASS}[title]")
        line.wait_for()
        box, canvas = line.bounding_box(), page.locator("canvas").last.bounding_box()
        assert line.locator("div").bounding_box()["width"] == 1
        assert box["height"] == canvas["height"]
        middle = box["x"] + box["width"] / 2
        assert abs(middle - (canvas["x"] + canvas["width"] / 2)) <= 1
        # the window is higher than it is wide beside the panel: the image takes all of its width
        width = canvas["width"]
        assert width < canvas["height"]
        page.mouse.move(middle, canvas["y"] + 300)
        page.mouse.down()
        page.mouse.move(middle + width / 8, canvas["y"] + 300, steps=5)
        page.mouse.move(middle + width / 4, canvas["y"] + 300, steps=5)
        page.mouse.up()
        until(lambda: abs(viewer.comparison.choice.settings.split - 0.75) < 0.02, "the split follows")
        until(lambda: abs(line.bounding_box()["x"] - box["x"] - width / 4) <= 2, "the line follows")
        assert tab.session.view == 0, "the camera stays"
        corner = page.locator(f".{CLASS}:not([title])").inner_text()
        # two fine images in a second, which a drag may well give, have a rate beside their size
        assert corner.splitlines()[0].split(",")[0] == "16 x 16"
        assert "multiply-adds a query" in corner
        tab.save("overlay")
        tab.choose("View", "left only")
        line.wait_for(state="detached")


def test_a_drag_gives_images_all_along(page: Any, pair: list[ShownRun], tmp_path: Path) -> None:
    """On two busy cores that also draw the page: at least DRAG_FRAMES in two seconds."""
    shown: list[float] = []
    with viewing(pair, tmp_path, max_size=64) as viewer:
        tab = Tab(page, viewer)
        tab.fine()
        viewer.on_display(lambda *_: shown.append(time.monotonic()))
        page.mouse.move(60, 300)
        page.mouse.down()
        start = time.monotonic()
        while (passed := time.monotonic() - start) < 2.0:
            page.mouse.move(60 + 150 * passed, 300)
            time.sleep(0.02)
        frames = len(shown)
        page.mouse.up()
        assert frames >= DRAG_FRAMES
        until(lambda: tab.session.view is None, "the camera has left the view")
        tab.fine()


def test_two_tabs_and_one_that_drops_while_it_is_served(
    browser: Any, page: Any, pair: list[ShownRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Any] = []
    monkeypatch.setattr("threading.excepthook", errors.append)
    with viewing(pair[:1], tmp_path, max_size=20) as viewer:
        first = Tab(page, viewer)
        other = seldom_drawn(browser, 500, 400)
        second = Tab(other, viewer)
        assert first.client != second.client
        second.fine()
        first.fine()
        second.session.go_to_view(2)
        second.session.moved()  # as a page's first report has it: what it was sent is not where it has arrived
        assert not second.session._arrived
        second.fine()
        assert second.session._arrived
        assert (first.session.view, second.session.view) == (0, 2)
        dropped = second.session
        dropped.request_render("move")
        other.close()
        until(lambda: second.client not in viewer.sessions, "the tab is gone")
        until(lambda: not dropped.is_alive(), "its thread ends")
        first.session.go_to_view(1)
        first.fine()
        assert "test view 1" in first.numbers
        assert not errors


def test_compression_in_a_browser(page: Any, pair: list[ShownRun], tmp_path: Path) -> None:
    with viewing(pair[:1], tmp_path, max_size=20) as viewer:
        tab = Tab(page, viewer)
        tab.fine()
        until(lambda: viewer.lines.lines.get(GATHER_JOB) == "", "the preview is ready")
        tab.open("Compress")
        until(lambda: tab.slider("trunk_0").is_visible(), "the sliders are there")
        before, numbers = tab.canvas(), viewer.compress_panel.facts.content
        layers = viewer.compress_panel.compression
        assert layers is not None
        tab.drag("trunk_0", -250)
        until(lambda: next(iter(layers.widths.values()))["trunk_0"] < 16, "the layer gets narrower")
        assert viewer.compress_panel.wait_until_idle(10)
        tab.fine()
        assert viewer.compress_panel.facts.content != numbers
        assert "dense (preview)" in tab.numbers
        assert change(before, tab.canvas()) > 1
        frame = tab.session.frame
        assert frame is not None
        image = viewer.comparison.compose(frame)
        assert image is not None
        same_within_jpeg(tab.canvas(), pad_to_aspect(image, tab.session.client.camera.aspect))
        macs = next(line for line in tab.numbers.splitlines() if "multiply-adds" in line).split("|")
        assert int(macs[3].replace(",", "")) < int(macs[2].replace(",", ""))
        tab.save("compress")

        tab.press("Speed-up", "ArrowRight", 8)
        until(lambda: layers.predicted().speedup >= 1.4, "the whole field gets faster")
        page.get_by_role("button", name="Save as run").click()
        until(lambda: "wrote" in viewer.lines.lines.get(SAVE_JOB, ""), "the run is written", 60)
        tab.fine()
        assert "saved" in tab.numbers
        tab.save("saved")
        path = Path(viewer.lines.lines[SAVE_JOB].removeprefix("wrote "))
    from eugen_nerf.evaluation.compare import evaluate
    from eugen_nerf.evaluation.protocol import Timing

    timing = Timing(warmup=0, repeats=1, num_queries=64)
    comparison = evaluate([path], timing=timing, device="cpu")
    assert comparison.views


def test_recording_in_a_browser(page: Any, pair: list[ShownRun], tmp_path: Path) -> None:
    with viewing(pair, tmp_path, max_size=20) as viewer:
        tab = Tab(page, viewer)
        tab.fine()
        tab.open("Record")
        page.get_by_role("button", name="Render film").click()
        until(lambda: "at least two cameras" in viewer.lines.lines.get(FILM_JOB, ""), "too short a path is refused")
        for view in (0, 1):
            tab.session.go_to_view(view)
            tab.fine()
            page.get_by_role("button", name="Add camera").click()
            until(lambda view=view: len(viewer.record_panel.path.viewpoints) == view + 1, "the place is recorded")  # type: ignore[misc]
        viewer.record_panel.seconds.value, viewer.record_panel.fps.value, viewer.record_panel.height.value = 0.5, 6, 24
        page.get_by_role("button", name="Render film").click()
        until(lambda: "3 frames" in viewer.lines.lines[FILM_JOB], "the film is rendered")
        page.get_by_role("button", name="Screenshot").click()
        until(lambda: list(tmp_path.glob("screenshot-*.png")), "the screenshot is saved")
        page.get_by_role("button", name="Save path").click()
        until(lambda: list(tmp_path.glob("path-*.json")), "the path is saved")
        tab.save("record")
    (film,) = tmp_path.glob("film-*.mp4")
    import imageio.v3 as iio

    assert iio.imread(film, plugin="pyav").shape[0] == 3


def test_time_in_a_browser(page: Any, tiny_dense_dnerf_run: Path, tmp_path: Path) -> None:
    shown_run = open_run(tiny_dense_dnerf_run, "moving", device="cpu", data=None)
    with torch.no_grad():  # after two steps of training there is little to see and nothing moves
        for field in shown_run.model.graph_fields().values():  # type: ignore[operator]
            for name, value in field.network.named_parameters():
                if value.ndim == 2 and any(part in name for part in ("offset", "rgb", "density")):
                    value.mul_(300 if "offset" in name else 30)
    with viewing([shown_run], tmp_path) as viewer:
        tab = Tab(page, viewer)
        tab.fine()
        aspect, frames = tab.session.client.camera.aspect, {}
        for key, at in (("Home", 0.0), ("End", 1.0)):
            tab.press("Time", key)
            until(lambda at=at: viewer.comparison.time == at, "the slider moves")  # type: ignore[misc]
            tab.fine()
            camera = view_camera(shown_run.run, 0)
            camera.times = torch.full_like(camera.times, at)  # type: ignore[arg-type]
            exact = quantise(render_rgb(shown_run.run, camera))
            frames[at] = tab.canvas()
            same_within_jpeg(frames[at], pad_to_aspect(exact, aspect))
            tab.save(f"time-{at:g}")
        assert change(frames[0.0], frames[1.0]) > 20
        page.get_by_role("button", name="Play").click()
        start = viewer.comparison.time
        until(lambda: abs(viewer.comparison.time - start) > 0.05, "time goes on")
        page.get_by_role("button", name="Pause").click()
        time.sleep(0.5)
        stopped = viewer.comparison.time
        time.sleep(0.4)
        assert viewer.comparison.time == stopped
        tab.fine()


def test_a_surface_in_a_browser(page: Any, tiny_isdf_run: Path, tmp_path: Path) -> None:
    shown_run = open_run(tiny_isdf_run, "room", device="cpu", data=None)
    with viewing([shown_run], tmp_path, max_size=24) as viewer:
        tab = Tab(page, viewer)
        surface = viewer.surface_panel
        assert surface is not None
        until(lambda: viewer.lines.lines.get(MESH_JOB) == "", "the mesh is extracted", 60)
        until(lambda: "faces" in tab.numbers, "the mesh is described")
        time.sleep(1)
        with_mesh = tab.canvas()
        assert surface.mesh_checkbox.value
        assert len(np.unique(with_mesh.reshape(-1, 3), axis=0)) > 20  # shaded, and not the bare background
        tab.save("mesh")
        tab.open("Surface")
        page.get_by_role("button", name="Look from outside").click()
        high = shown_run.model.scene_box.aabb[1].numpy()
        until(lambda: (tab.session.viewpoint().pose[:, 3].numpy() > high).any(), "the camera leaves the box")
        time.sleep(1)
        assert change(with_mesh, tab.canvas()) > 30
        tab.save("outside")
        tab.session.go_to_view(0)
        page.get_by_label("Show mesh").click()
        tab.fine()
        plain = tab.canvas()
        page.get_by_label("Show slice").click()
        until(lambda: "m, inside" in surface.bar.content, "the slice and its scale are there")
        time.sleep(1)
        tab.fine()
        assert change(plain, tab.canvas()) > 30
        tab.save("slice")
        page.get_by_label("Click to measure").click()
        until(lambda: "click on" in surface.measurement.content, "clicks are waited for")

        def click_is_measured() -> bool:
            page.mouse.click(150, 300)
            time.sleep(0.5)
            return "distance" in surface.measurement.content or "nothing" in surface.measurement.content

        until(click_is_measured, "a click is measured")
        origin, direction = shown_run.model.scene_box.get_center().numpy(), np.array([1.0, 0.2, -0.1])
        surface.measure(origin, direction)
        assert "gradient" in surface.measurement.content
        tab.save("probe")


@pytest.fixture(scope="module")
def tiny_isdf_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_rgbd import few_rays, isdf_trainer, write_sequence

    root = tmp_path_factory.mktemp("isdf")
    data = write_sequence(root / "data", np.linspace(0, 2 * np.pi, 12, endpoint=False))
    trainer = isdf_trainer(data, root / "runs", iterations=120, change=few_rays)
    trainer.train()
    return trainer.config.get_base_dir() / "config.yml"
