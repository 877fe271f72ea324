"""What a page says and refuses, in a real browser: a lost GPU, no GPU, hostile names, its policy, its labels."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pages import Opened, pair, pretended_field, written

Open = Callable[..., Opened]


def test_a_lost_gpu_is_opened_again_and_then_left_to_the_reader(show: Open) -> None:
    tab = show(pair())
    tab.still()
    tab.drag(60)
    tab.still()
    pose = tab.last["camera"]["pose"]
    for opened in (2, 3):
        tab.page.evaluate("window.fake.draws.length = 0; window.fake.lose('a test')")
        tab.page.wait_for_function(f"() => window.fake.opened === {opened} && window.fake.draws.length > 0")
        tab.still()
        assert tab.last["camera"]["pose"] == pose
        assert tab.page.locator("#picture canvas").count() == 1
    tab.page.evaluate("window.fake.lose('a test')")
    notice = tab.page.get_by_role("alert")
    notice.wait_for()
    assert notice.inner_text().splitlines()[:1] == ["The GPU stopped"]
    tab.page.evaluate("window.fake.draws.length = 0")
    tab.button("Try again").click()
    tab.still()
    assert not notice.is_visible()


def test_a_picture_that_fails_says_why(show: Open) -> None:
    tab = show(pair())
    tab.still()
    tab.page.evaluate("window.fake.fail = 'this one fails'")
    tab.drag(60)
    tab.page.get_by_role("alert").wait_for()
    assert "this one fails" in tab.page.get_by_role("alert").inner_text()
    tab.page.evaluate("window.fake.fail = null; window.fake.draws.length = 0")
    tab.button("Try again").click()
    tab.still()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no-webgpu", ("This browser has no WebGPU", "Chrome or Edge 113 or later", "Safari 26", "Firefox 141")),
        ("no-adapter", ("No GPU to render with", "hardware acceleration")),
        ("limits", ("Too large for this GPU", "limits is what the test wants")),
    ],
)
def test_what_is_missing_is_said(show: Open, kind: str, words: tuple[str, ...]) -> None:
    tab = show(pair(), after=f"?fail={kind}")
    notice = tab.page.get_by_role("alert")
    notice.wait_for()
    text = notice.inner_text()
    assert all(word in text for word in words), text
    assert not tab.page.locator("#panel").is_visible()
    assert tab.button("Try again").is_visible() == (kind == "no-adapter")


HOSTILE = "</script><script>window.hostile = 1</script><img src=x onerror='window.hostile = 2'>"


def test_names_of_runs_are_text(show: Open) -> None:
    fields = [pretended_field(HOSTILE), pretended_field(f"{HOSTILE} 2")]
    for field in fields:
        field.description["info"]["views"][0]["name"] = HOSTILE
    tab = show(fields, title=HOSTILE)
    tab.still()
    assert tab.page.evaluate("window.hostile") is None
    assert tab.page.get_by_role("heading", level=1).inner_text() == HOSTILE
    assert tab.page.locator("#fields th").nth(0).inner_text() == HOSTILE
    assert HOSTILE in tab.page.get_by_label("Test views").inner_text()
    assert tab.page.locator("img").count() == 0


def test_the_policy_refuses_scripts_styles_and_connections(show: Open) -> None:
    tab = show(pair())
    tab.still()
    tab.page.evaluate("""() => {
      window.refused = [];
      document.addEventListener("securitypolicyviolation", (event) => window.refused.push(event.effectiveDirective));
      const script = document.createElement("script");
      script.textContent = "window.hostile = 1";
      document.body.append(script);
      const image = new Image();
      image.src = "https://example.invalid/x.png";
      const style = document.createElement("style");
      style.textContent = "body { display: none }";
      document.body.append(style);
      fetch("https://example.invalid/").catch(() => {});
    }""")
    tab.page.wait_for_function("() => window.refused.length >= 4")
    wanted = {"script-src-elem", "img-src", "style-src-elem", "connect-src"}
    assert set(tab.page.evaluate("window.refused")) == wanted
    assert tab.page.evaluate("window.hostile") is None
    assert any("Content Security Policy" in error for error in tab.errors)
    tab.errors.clear()
    tab.requests.clear()  # the image's, which was stopped in the browser


def test_a_folder_needs_a_server_and_says_so(browser: Any, tmp_path: Path) -> None:
    page = written(pair(), tmp_path / "page", inline=False)
    handler = partial(SimpleHTTPRequestHandler, directory=str(page.parent))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        tab = Opened(browser, address)
        tab.still()
        assert tab.last["fields"] == [["#c33", sum(range(64))], ["#36c", sum(range(64))]]
        assert set(tab.requests) - {f"{address}field-{i}.bin" for i in (0, 1)} == {address}
        tab.page.close()
        (page.parent / "field-1.bin").write_bytes(b"cut")
        tab = Opened(browser, address)
        tab.page.get_by_role("alert").wait_for()
        assert "the page was cut off" in tab.page.get_by_role("alert").inner_text()
        tab.page.close()
        server.shutdown()
    tab = Opened(browser, page.as_uri())
    tab.page.get_by_role("alert").wait_for()
    assert "python -m http.server" in tab.page.get_by_role("alert").inner_text()
    tab.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1200, 760), (390, 780)])
def test_controls_are_named_and_on_the_page(show: Open, scheme: str, size: tuple[int, int]) -> None:
    tab = show(pair(times=[0.0, 1.0]), viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    tab.still()
    if not tab.page.locator("#panel").is_visible():
        tab.button("Controls").click()
    unnamed = tab.page.evaluate("""() => [...document.querySelectorAll("button, input, select, [role]")]
      .filter((each) => each.checkVisibility() && each.getAttribute("role") !== "status" &&
      !(each.getAttribute("aria-label") || each.getAttribute("aria-labelledby") || each.textContent.trim() ||
      each.labels?.length)).map((each) => each.outerHTML)""")
    assert unnamed == []
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= size[0]
    ground = tab.page.evaluate("getComputedStyle(document.getElementById('panel')).backgroundColor")
    assert (max(json.loads(ground.replace("rgb(", "[").replace(")", "]"))) < 60) == (scheme == "dark")
