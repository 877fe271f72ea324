#!/usr/bin/env python
"""Registers and spills of the fused kernel on a GPU that need not be there: compiled by triton for sm_90.

    python scripts/kernel_registers.py --networks "EUGen m=64" --rows 128 256

Without `--rows`, each network is compiled as `default_launch` launches it on an H100.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from eugen_nerf.benchmarks.network_speed import FAMILIES, networks_of
from eugen_nerf.core.inference import fused
from eugen_nerf.core.inference.fused_kernel import fused_kernel
from eugen_nerf.core.inference.packing import PackedNetwork, pack, unsupported_reason

SHARED_BYTES = 232_448
"""Shared memory that a program can have on an H100."""


def compiled(packed: PackedNetwork, launch: fused.Launch) -> bytes:
    """The kernel for sm_90."""
    constants = fused.kernel_constants(packed, launch)
    number = "*bf16" if packed.precision == "bfloat16" else "*fp32"
    types = {"weights": number, "stride0": "i64", "stride1": "i64", "count": "i32"}
    names = fused_kernel.arg_names
    pointers = [i for i, n in enumerate(names) if n not in constants and n not in ("count", "stride0", "stride1")]
    source = triton.compiler.ASTSource(
        fn=fused_kernel,
        signature={n: "constexpr" if n in constants else types.get(n, "*fp32") for n in names},
        constexprs={(names.index(n),): value for n, value in constants.items()},
        attrs={(i,): [["tt.divisibility", fused.ALIGNMENT]] for i in pointers},
    )
    options: dict[str, Any] = {"enable_fp_fusion": True, "num_warps": launch.warps}
    return bytes(triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["cubin"])


def registers_and_spills(cubin: bytes) -> tuple[int, int]:
    """Registers of a thread, and how many more it keeps in a stack for want of them: spills."""
    reader = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [reader, "-res-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    match = re.search(r"REG:(\d+) STACK:(\d+)", said)
    assert match is not None, said
    return int(match[1]), int(match[2]) // 4


def main() -> None:
    """Prints a line a launch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", default=["NeRF 8x256", "Mip-NeRF 360 8x1024"])
    parser.add_argument("--networks", nargs="+", help="such as 'EUGen m=64'; all by default")
    parser.add_argument("--rows", nargs="+", type=int, help="of a program; as default_launch chooses by default")
    options = parser.parse_args()
    fused._shared_bytes = lambda device: SHARED_BYTES
    cpu = torch.device("cpu")
    for family in (f for f in FAMILIES if f.name in options.families):
        for name, network in networks_of(family, cpu).items():
            if options.networks and name not in options.networks:
                continue
            reason = unsupported_reason(network.collapse(), network.input_widths)
            if reason is not None:
                print(f"{family.name}, {name}: no fused kernel: {reason}")
                continue
            packed = pack(network.collapse(), network.input_widths, "bfloat16")
            chosen = fused.default_launch(packed, cpu)
            for launch in [chosen._replace(rows=rows) for rows in options.rows] if options.rows else [chosen]:
                registers, spilled = registers_and_spills(compiled(packed, launch))
                print(
                    f"{family.name}, {name}: {launch.rows} rows, {launch.warps} warps, "
                    f"{launch.window} of {len(packed.tiles)} tiles at a time: {registers} registers, {spilled} spilled",
                    flush=True,
                )


if __name__ == "__main__":
    main()
