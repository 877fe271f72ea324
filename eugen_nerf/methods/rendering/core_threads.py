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


def render_side_by_side(
    render: Callable[[RayBundle], dict[str, Tensor]], ray_bundle: RayBundle, most: int | None = None
) -> dict[str, Tensor]:
    """What `render` gives for rays `[rays]`, without gradients: on a CPU in parts, by as many threads as torch uses.

    Args:
        render: from rays `[n]` to outputs `[n, channels]`, of each ray by itself.
        ray_bundle: near and far planes set.
        most: rays of a part, where more take too much memory.
    """
    if not len(ray_bundle):
        return render(ray_bundle)
    threads = torch.get_num_threads() if ray_bundle.origins.device.type == "cpu" else 1
    count = max(1, min(PARTS_PER_THREAD * threads, len(ray_bundle) // MIN_RAYS)) if threads > 1 else 1
    size = min(most or len(ray_bundle), -(-len(ray_bundle) // count))
    parts = [ray_bundle[start : start + size] for start in range(0, len(ray_bundle), size)]
    if threads < 2:
        done = [render(part) for part in parts]
    else:
        with _starting:
            pool = _pool(threads)
        done = list(pool.map(lambda part: torch.no_grad()(render)(part), parts))  # a thread has its own switch
    return {key: torch.cat([part[key] for part in done]) for key in done[0]}


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
