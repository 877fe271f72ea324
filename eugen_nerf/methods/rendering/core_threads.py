"""Rays rendered in parts side by side, each part by one thread: torch's own threads split every operation instead.

Rendering by a grid is many small operations. Split among threads, each of them waits for the slowest thread, and on a
machine with other work that is one which does not run at the moment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

MIN_RAYS = 1024
"""Of a part: with fewer, starting operations takes longer than they do."""
PARTS_PER_THREAD = 2
"""Parts of a batch for each thread: they take different times, and who has finished takes the next."""
_starting = threading.Lock()


def render_side_by_side(render: Callable[[RayBundle], dict[str, Tensor]], ray_bundle: RayBundle) -> dict[str, Tensor]:
    """What `render` gives for rays `[rays]`, without gradients: on a CPU in parts, by as many threads as torch uses.

    Args:
        render: from rays `[n]` to outputs `[n, channels]`, of each ray by itself.
        ray_bundle: near and far planes set.
    """
    threads = torch.get_num_threads() if ray_bundle.origins.device.type == "cpu" else 1
    if threads < 2 or not len(ray_bundle):
        return render(ray_bundle)
    count = max(1, min(PARTS_PER_THREAD * threads, len(ray_bundle) // MIN_RAYS))

    def work(part: RayBundle) -> dict[str, Tensor]:
        with torch.no_grad():  # a thread has its own switch
            return render(part)

    size = -(-len(ray_bundle) // count)
    with _starting:
        pool = _pool(threads)
    parts = list(pool.map(work, [ray_bundle[start : start + size] for start in range(0, len(ray_bundle), size)]))
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads in which torch splits no operation."""
    pool = ThreadPoolExecutor(threads, "rays", initializer=_split_nothing)
    ready = threading.Barrier(threads)
    for started in [pool.submit(ready.wait) for _ in range(threads)]:
        started.result()
    torch.set_num_threads(threads)  # threads that start later go by the last call of any thread
    return pool


def _split_nothing() -> None:
    torch.get_num_threads()  # a thread's first call of torch takes over the number that was set last
    torch.set_num_threads(1)
