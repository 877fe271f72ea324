"""The engine of a page in a real browser, without the page around it: WebGPU in software."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np

import eugen_nerf.web
from eugen_nerf.core.cameras.pinhole_camera import PinholeCamera
from eugen_nerf.web.scene_data import SceneData

ASSETS = Path(eugen_nerf.web.__file__).parent / "assets"
TESTS = Path(__file__).parent
ORIGIN = "http://localhost/"
"""Where the tests serve the engine from: browsers give WebGPU to local pages. Nothing listens there."""
OPEN = """async ([tiles]) => {
  const { openEngine } = await import("/engine/engine.js");
  window.engine = await openEngine(document.querySelector("canvas"), { tiles });
  window.fields = [];
  window.packed = (numbers) => {
    const bytes = new Uint8Array(numbers.buffer);
    let text = "";
    for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return btoa(text);
  };
}"""
LOAD = """async (description) => {
  const binary = await (await fetch("/binary")).arrayBuffer();
  return fields.push(await engine.load(description, binary)) - 1;
}"""
DRAW = """async ([numbers, view]) => {
  const drawn = await engine.draw({ ...view, fields: numbers.map((i) => fields[i]) });
  return [drawn, packed(await engine.pixels())];
}"""
QUERY = """async ([description, points]) => {
  const { queryField } = await import("/field_query.js");
  const binary = await (await fetch("/binary")).arrayBuffer();
  return packed(await queryField(engine.gpu, description, binary, new Float32Array(points)));
}"""


class EnginePage:
    """An engine in a browser's tab."""

    def __init__(self, page: Any, *, tiles: bool = False) -> None:
        self.page, self.binary = page, b""
        self.requests: list[str] = []
        page.route("**/*", self._serve)
        page.goto(ORIGIN)
        page.evaluate(OPEN, [tiles])

    def load(self, data: SceneData) -> int:
        """The number of a scene's field."""
        self.binary = data.binary
        number: int = self.page.evaluate(LOAD, data.description)
        return number

    def draw(self, fields: list[int], camera: PinholeCamera, **view: Any) -> tuple[np.ndarray, dict[str, float]]:
        """A picture, float32 `[height, width, 3]`, and what the engine says of it."""
        settings = {"camera": camera_entries(camera), "time": camera.time, **view}
        drawn, packed = self.page.evaluate(DRAW, [fields, settings])
        return _unpacked(packed).reshape(camera.height, camera.width, 3), drawn

    def query(self, data: SceneData, points: np.ndarray) -> np.ndarray:
        """Outputs `[n, 4]` of a scene's field at points `[n, 8]`; shaders of its renderer are not compiled."""
        self.binary = data.binary
        found = self.page.evaluate(QUERY, [data.description, points.flatten().tolist()])
        return _unpacked(found).reshape(-1, 4)

    def _serve(self, route: Any) -> None:
        url = route.request.url
        self.requests.append(url)
        path = url.removeprefix(ORIGIN)
        if path == "":
            route.fulfill(body="<canvas></canvas>", content_type="text/html")
        elif path == "binary":
            route.fulfill(body=self.binary, content_type="application/octet-stream")
        else:
            folder = TESTS if path == "field_query.js" else ASSETS
            route.fulfill(body=(folder / path).read_bytes(), content_type="text/javascript")


def camera_entries(camera: PinholeCamera) -> dict[str, Any]:
    """A camera as the engine takes it."""
    lengths = {key: getattr(camera, key) for key in ("fx", "fy", "cx", "cy", "width", "height")}
    return {**lengths, "pose": camera.pose.flatten().tolist()}


def decibel(image: np.ndarray, other: np.ndarray) -> float:
    """PSNR of two images, dB."""
    return float(-10 * np.log10(np.square(image.astype(np.float64) - other).mean() + 1e-15))


def _unpacked(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<f4")
