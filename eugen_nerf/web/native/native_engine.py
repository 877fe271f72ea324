"""Renders a page's scene on this machine's GPU: the page's own engine, run by V8 and WebGPU without a browser."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import cache, partial
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import torch

from eugen_nerf.core.cameras.camera_images import RenderedPixels
from eugen_nerf.core.cameras.pinhole_camera import PinholeCamera
from eugen_nerf.web.module_bundling import bundle_modules
from eugen_nerf.web.native.adapters import GpuAdapter, GpuError, choose_adapter
from eugen_nerf.web.native.gpu_bridge import GpuBridge
from eugen_nerf.web.page import own_sources
from eugen_nerf.web.scene_data import SceneData

Result = TypeVar("Result")
ENTRY = "native/engine_jobs.js"
PIXEL_BYTES = 32
"""Of a rendered image: colour and depth, normal and opacity, float32."""


class Drawn(NamedTuple):
    """An image, and what it took."""

    pixels: RenderedPixels
    queries: int
    """Of fields, for all of it."""


class NativeEngine:
    """A scene on a GPU, ready to be rendered; for use in a `with` block, or until `close`.

    The JavaScript of `assets/engine` and the shaders that it writes are those of web pages, unchanged.

    Args:
        data: of a page (`scene_data`).
        adapter: the machine's best one where None.
        tiles: whether threads share tiles on software adapters too, as on a GPU.

    Raises:
        GpuError: a package is missing, there is no adapter, the scene does not fit it, or is none.
    """

    def __init__(self, data: SceneData, adapter: GpuAdapter | None = None, *, tiles: bool = False) -> None:
        self.adapter = choose_adapter() if adapter is None else adapter
        from py_mini_racer import MiniRacer

        self.surface = data.description["field"].get("kind") == "distance"
        self._lock = threading.Lock()
        self._script = MiniRacer()
        self._bridge = GpuBridge(self.adapter, self._arrive)
        self._open = True
        try:
            self._evaluate(_engine_script())
            self._evaluate(f"native.sceneBytes({len(data.binary)})")[:] = data.binary
            options = {"adapter": self._bridge.offer(), "description": data.description, "tiles": tiles}
            self._job("open", options)
        except BaseException:
            self.close()
            raise

    def render(self, camera: PinholeCamera) -> Drawn:
        """The image of a camera, `[height, width, channels]`, float32 on the CPU.

        Args:
            camera: in scene units; with a time where the scene moves.

        Raises:
            GpuError: the GPU was lost or is too small for the image, or the engine is closed.
        """
        lengths = {key: getattr(camera, key) for key in ("fx", "fy", "cx", "cy", "width", "height")}
        view = {"camera": {**lengths, "pose": camera.pose.flatten().tolist()}, "time": camera.time}
        with self._lock:
            drawn = self._job("draw", view)
            size = PIXEL_BYTES * camera.width * camera.height
            content = self._on_gpu(partial(self._bridge.content, drawn["image"], size))
        image = torch.frombuffer(content, dtype=torch.float32).view(camera.height, camera.width, 8)
        colour, depth, normals, opacity = image.split([3, 1, 3, 1], dim=-1)
        return Drawn(RenderedPixels(colour, depth, opacity, normals if self.surface else None), drawn["queries"])

    def close(self) -> None:
        """Frees the GPU; calling it again changes nothing."""
        if self._open:
            self._open = False
            self._bridge.close()
            self._script.close()

    def __enter__(self) -> NativeEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _job(self, name: str, values: dict[str, Any]) -> Any:
        """The value of a job of `assets/native/engine_jobs.js`, whose turns alternate with the GPU's."""
        if not self._open:
            raise GpuError("the engine on the GPU is closed: open the scene again")
        self._evaluate(f"native.start({json.dumps(name)}, {json.dumps(values)})")
        done = False
        while not done:
            turn = json.loads(self._evaluate("native.take()"))
            commands, done = turn["commands"], turn["done"]
            assert commands or done, "the engine waits for nothing that the GPU does"
            content = self._evaluate("native.takenBytes()")
            for number, value, error in self._on_gpu(partial(self._bridge.carry_out, commands, content)):
                self._evaluate(f"native.settle({number}, {json.dumps(value)}, {json.dumps(error)})")
        if "error" in turn:
            raise GpuError(f"{turn['error']} Or render with --device cpu.")
        return turn["value"]

    def _evaluate(self, code: str) -> Any:
        return self._script.eval(code)

    def _on_gpu(self, work: Callable[[], Result]) -> Result:
        """What some work on the device returns; raises `GpuError` where it cannot go on, and closes the engine."""
        try:
            return work()
        except Exception as error:  # of a driver: wgpu has classes for some, and RuntimeError for others
            self.close()
            reason = " ".join(str(error).split())
            raise GpuError(
                f"{self.adapter.name} was lost or cannot go on ({reason}): open the scene again, or render with "
                "--device cpu"
            ) from error

    def _arrive(self, buffer: int, content: memoryview) -> None:
        self._evaluate(f"native.arrivingContent({buffer})")[:] = content


@cache
def _engine_script() -> str:
    """The engine as one script without imports."""
    return bundle_modules(own_sources(), ENTRY)
