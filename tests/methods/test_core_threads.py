"""Rays in parts by several threads: the same results in the same order, and torch's own threads as they were."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle

from eugen_nerf.methods.rendering import core_threads
from eugen_nerf.methods.rendering.core_threads import render_side_by_side

THREADS = 3


@pytest.fixture(autouse=True)
def several_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(core_threads, "MIN_RAYS", 4)
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


def rays(count: int) -> RayBundle:
    origins = torch.arange(3.0 * count).view(count, 3)
    return RayBundle(origins, torch.ones(count, 3), torch.ones(count, 1))


def doubled(part: RayBundle) -> dict[str, torch.Tensor]:
    return {"twice": 2 * part.origins, "first": part.origins[:, :1]}


@pytest.mark.parametrize("count", [0, 1, 3, 8, 23, 24, 25, 1000])
def test_every_ray_is_rendered_once_and_in_its_place(count: int) -> None:
    found, expected = render_side_by_side(doubled, rays(count)), doubled(rays(count))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_parts_go_to_threads_in_which_torch_splits_nothing_and_keeps_no_graph() -> None:
    seen: list[tuple[str, int, bool, int]] = []

    def render(part: RayBundle) -> dict[str, torch.Tensor]:
        seen.append((threading.current_thread().name, torch.get_num_threads(), torch.is_grad_enabled(), len(part)))
        return doubled(part)

    with torch.no_grad():
        render_side_by_side(render, rays(60))
    assert [length for *_, length in seen] == [10] * 6
    assert all(name.startswith("rays") for name, *_ in seen)
    assert {number for _, number, *_ in seen} == {1}
    assert {graph for _, _, graph, _ in seen} == {False}
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert torch.get_num_threads() == THREADS
    assert later == [THREADS]


def test_few_rays_are_one_part_and_a_single_thread_renders_where_it_is() -> None:
    names: list[str] = []

    def render(part: RayBundle) -> dict[str, torch.Tensor]:
        names.append(threading.current_thread().name)
        return doubled(part)

    render_side_by_side(render, rays(7))
    assert [name[:4] for name in names] == ["rays"]
    torch.set_num_threads(1)
    render_side_by_side(render, rays(1000))
    assert names[1:] == [threading.current_thread().name]


@pytest.mark.parametrize("threads", [1, THREADS])
def test_no_part_has_more_rays_than_it_may(threads: int) -> None:
    torch.set_num_threads(threads)
    lengths: list[int] = []

    def render(part: RayBundle) -> dict[str, torch.Tensor]:
        lengths.append(len(part))
        return doubled(part)

    found = render_side_by_side(render, rays(50), 7)
    assert all(torch.equal(found[key], value) for key, value in doubled(rays(50)).items())
    assert sorted(lengths) == [1, *[7] * 7]


def test_an_error_in_a_part_is_raised() -> None:
    def fail(part: RayBundle) -> dict[str, torch.Tensor]:
        raise RuntimeError("out of light")

    with pytest.raises(RuntimeError, match="out of light"):
        render_side_by_side(fail, rays(100))
