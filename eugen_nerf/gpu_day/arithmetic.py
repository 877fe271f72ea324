"""How products of float32 matrices are made on CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def has_tf32_products() -> bool:
    """Whether they are TF32's."""
    return torch.get_float32_matmul_precision() != "highest"


@contextmanager
def float32_products(*, tf32: bool) -> Iterator[None]:
    """Within it, they are TF32's, or float32's; of no effect on a CPU."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
