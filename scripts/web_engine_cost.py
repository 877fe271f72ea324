#!/usr/bin/env python
"""What the engine of web pages costs and how near its pictures are to PyTorch's, in a headless Chromium.

python scripts/web_engine_cost.py --bundles BUNDLE ... --names demo ... --output docs/results/data/web_engine.json

WebGPU is Chromium's own software adapter, so times are a processor's. Pictures are of the first test view.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

import eugen_nerf.web
from eugen_nerf.core import load_bundle
from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.bundles.bundled_proposals import BundledProposals
from eugen_nerf.evaluation.costs.resources import environment
from eugen_nerf.web.scene_data import SceneData, scene_data

ASSETS = Path(eugen_nerf.web.__file__).parent / "assets"
CHROMIUM = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan", "--no-sandbox"]
ORIGIN = "http://localhost/"
RENDER = """async ([description, view, repeats]) => {
  const { openEngine } = await import("/engine/engine.js");
  const binary = await (await fetch("/binary")).arrayBuffer();
  const engine = await openEngine(null);
  const started = performance.now();
  const field = await engine.load(description, binary);
  const loaded = performance.now();
  let drawn = await engine.draw({ ...view, fields: [field] });
  const first = performance.now();
  const milliseconds = [];
  for (let i = 0; i < repeats; i++) {
    drawn = await engine.draw({ ...view, fields: [field] });
    milliseconds.push(drawn.milliseconds);
  }
  const bytes = new Uint8Array((await engine.pixels()).buffer);
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  engine.destroy();
  return {
    load_ms: loaded - started,
    first_ms: first - loaded,
    milliseconds,
    queries: drawn.queries,
    adapter: engine.limits.name,
    pixels: btoa(text),
  };
}"""


def main() -> None:
    """Measures bundles one after another and writes a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, nargs="+", required=True)
    parser.add_argument("--names", nargs="+", required=True)
    parser.add_argument("--size", type=int, default=128, help="rows of a picture")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    for name, path in zip(options.names, options.bundles, strict=True):
        rows.append({"name": name, **measure(load_bundle(path), options.size, options.repeats)})
        print(json.dumps(rows[-1]), flush=True)
    notes = (
        "Times are Chromium's software WebGPU on this processor; rounding: mean squared error that fewer bits make in "
        "PyTorch; psnr_to_pytorch: of the engine's picture to load_bundle(...).render(camera) of the exact numbers."
    )
    options.output.write_text(
        json.dumps({"rows": rows, "notes": notes, "environment": environment("cpu", ["float32"])}, indent=1)
    )


def measure(field: BundledField, size: int, repeats: int) -> dict[str, Any]:
    """One bundle's row."""
    data = scene_data(field)
    camera = field.cameras[0].resized(size)
    started = time.perf_counter()
    exact = field.render(camera).colour.numpy()
    seconds = time.perf_counter() - started
    lengths = {key: getattr(camera, key) for key in ("fx", "fy", "cx", "cy", "width", "height")}
    view = {"camera": {**lengths, "pose": camera.pose.flatten().tolist()}, "time": camera.time}
    drawn = rendered(data, view, repeats)
    image = np.frombuffer(base64.b64decode(drawn.pop("pixels")), dtype="<f4").reshape(exact.shape)
    error = float(np.square(image.astype(np.float64) - exact).mean())
    best = min(drawn["milliseconds"])
    pixels = camera.width * camera.height
    products = multiply_adds_a_pixel(field, drawn["queries"] / pixels)
    return {
        "kind": data.description["renderer"]["kind"],
        "size": [camera.height, camera.width],
        "multiply_adds": field.multiply_adds(),
        "queries_a_pixel": drawn["queries"] / pixels,
        "multiply_adds_a_pixel": products,
        "teraflops_for_60_images_of_800_a_second": 2 * products * 800 * 800 * 60 / 1e12,
        "binary_bytes": len(data.binary),
        "gzip_bytes": len(gzip.compress(data.binary, 9)),
        "precision": data.precision._asdict(),
        "rounding": data.rounding,
        "lost_db": data.lost,
        "psnr_to_pytorch": -10 * float(np.log10(error + 1e-15)),
        "pytorch_ms": 1000 * seconds,
        "gmacs_a_second": products * pixels / best / 1e6,
        **drawn,
    }


def multiply_adds_a_pixel(field: BundledField, queries: float) -> float:
    """Multiply-adds of all networks for a pixel that takes so many queries."""
    renderer = field.rendered_scene().renderer
    if not isinstance(renderer, BundledProposals):
        return queries * field.multiply_adds()
    *rounds, last = renderer.renderer.counts
    proposals: list[BundledField] = list(renderer.proposals)  # type: ignore[arg-type]
    costs = [proposals[min(i, len(proposals) - 1)].multiply_adds() for i in range(len(rounds))]
    return sum(n * cost for n, cost in zip(rounds, costs, strict=True)) + last * field.multiply_adds()


def rendered(data: SceneData, view: dict[str, Any], repeats: int) -> dict[str, Any]:
    """What the engine makes of a view in a browser of its own."""
    from playwright.sync_api import sync_playwright

    def serve(route: Any) -> None:
        path = route.request.url.removeprefix(ORIGIN)
        if path == "":
            route.fulfill(body="<title>engine</title>", content_type="text/html")
        elif path == "binary":
            route.fulfill(body=data.binary, content_type="application/octet-stream")
        else:
            route.fulfill(body=(ASSETS / path).read_bytes(), content_type="text/javascript")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        page = browser.new_page()
        page.route("**/*", serve)
        page.goto(ORIGIN)
        drawn: dict[str, Any] = page.evaluate(RENDER, [data.description, view, repeats])
        browser.close()
    return drawn


if __name__ == "__main__":
    main()
