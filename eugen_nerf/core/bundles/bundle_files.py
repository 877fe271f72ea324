"""Safe bundles: a folder with `bundle.json` and `weights.safetensors`, data alone, which is checked before it is used.

`bundle.json` describes the field and how it is rendered, and lists every tensor with dtype and shape; the header of the
weights must agree. Nothing in either file is executed or followed as a path. Reading needs torch and safetensors alone.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from eugen_nerf.core.bundle_schema import ADVICE, BundleError, Spec, StoredTensors, parse_object
from eugen_nerf.core.bundles.atomic_files import new_path
from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.bundles.field_kinds import build_field
from eugen_nerf.core.bundles.onnx_export import export_onnx

FORMAT = "eugen_nerf bundle"
VERSION = 2
READABLE = (1, 2)
"""Versions that are read; bundles of version 1 hold a field alone."""
DESCRIPTION, WEIGHTS = "bundle.json", "weights.safetensors"
DESCRIPTION_LIMIT = 4 << 20
"""Bytes that bundle.json may have, and the header of the weights as well."""
WEIGHTS_LIMIT = 4 << 30
"""Bytes of all tensors that `load_bundle` accepts by default."""
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U8": torch.uint8,  # cells of an occupancy
}
_NAMES = {str(dtype).removeprefix("torch."): code for code, dtype in DTYPES.items()}


def save_bundle(field: BundledField, path: str | Path, *, onnx: bool = False) -> None:
    """Writes a field, and its scene where it has one, as a new folder, whole or not at all.

    Args:
        field: a `RadianceBundle` or a `DistanceBundle`.
        path: the folder, which must not exist; its parents are created.
        onnx: whether each network is written beside it as well, `network.onnx` and so on (see `export_onnx`).

    Raises:
        BundleError: the folder exists or cannot be written, weights that are not finite, packages that are missing.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from eugen_nerf.core import BundledGraph, DistanceBundle, FrequencyEncoding, NeRFShape, build_nerf
        >>> from eugen_nerf.core import load_bundle, save_bundle
        >>> encoding, shape = FrequencyEncoding(3, 4, 0.0, 3.0), NeRFShape(27, trunk_width=16, head_width=0)
        >>> network = build_nerf(shape)
        >>> field = DistanceBundle(encoding, BundledGraph(network.collapse(), network.input_widths), 1.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_bundle(field, Path(folder) / "field")
        ...     loaded = load_bundle(Path(folder) / "field")
        >>> points = torch.rand(5, 3)
        >>> torch.equal(loaded(points), field(points))
        True
    """
    tensors = {n: t.detach().cpu().contiguous() for n, t in field.state_dict().items()}
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"tensor {name!r} holds NaN or infinity: write an older checkpoint instead")
    declared = {n: {"dtype": str(t.dtype).removeprefix("torch."), "shape": list(t.shape)} for n, t in tensors.items()}
    document = {
        "format": FORMAT,
        "version": VERSION,
        "field": field.describe(),
        "scene": None if field.scene is None else field.scene.describe(),
        "tensors": declared,
    }
    safetensors = _safetensors()
    with new_path(Path(path)) as folder:
        folder.mkdir()
        text = json.dumps(document, indent=1, allow_nan=False).encode()
        if len(text) > DESCRIPTION_LIMIT:
            raise BundleError(f"the field's description takes {len(text)} bytes, a bundle allows {DESCRIPTION_LIMIT}")
        (folder / DESCRIPTION).write_bytes(text)
        try:
            safetensors.torch.save_file(tensors, str(folder / WEIGHTS))
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error
        if onnx:
            for name, network in field.networks().items():
                export_onnx(network.graph, network.input_widths, folder / f"{name.removesuffix('.network')}.onnx")


def load_bundle(path: str | Path, *, max_bytes: int = WEIGHTS_LIMIT) -> BundledField:
    """The field in a bundle, on the CPU and in evaluation mode; `.to(device)` moves it.

    Args:
        path: the folder that `save_bundle` wrote.
        max_bytes: bytes of all tensors that are accepted, checked before they are read.

    Returns:
        A `RadianceBundle` or a `DistanceBundle`: see there how it is called. `render(camera)` gives images where the
        bundle has a scene, and `cameras` those of the test views.

    Raises:
        BundleError: files that are missing, cut off, too large, of another version, or that disagree.

    Examples:
        >>> from eugen_nerf.core import BundleError, load_bundle
        >>> try:
        ...     field = load_bundle("outputs/garden/bundle")
        ... except BundleError as error:
        ...     print(error)
        outputs/garden/bundle/bundle.json is not there or no file: a bundle is a folder with ...
    """
    folder = Path(path)
    safetensors = _safetensors()
    with _opened(folder / DESCRIPTION) as (file, size):
        if size > DESCRIPTION_LIMIT:
            raise BundleError(f"{folder / DESCRIPTION} has {size} bytes, a bundle allows {DESCRIPTION_LIMIT}; {ADVICE}")
        where = str(folder / DESCRIPTION)
        document = Spec(parse_object(file.read(DESCRIPTION_LIMIT + 1), where), where)
    document.text("format", (FORMAT,))
    version = document.integer("version", 0, 1 << 31)
    if version not in READABLE:
        raise BundleError(
            f"{folder} is a bundle of version {version}; this eugen_nerf reads versions 1 to {VERSION}: "
            f"{'update eugen_nerf' if version > VERSION else 'write it again'}"
        )
    described, declared = document.part("field"), document.part("tensors")
    scene = None if version == 1 else document.optional_part("scene")
    document.close()
    weights = folder / WEIGHTS
    with _opened(weights) as (file, size):
        header = _header(file, str(weights), size, max_bytes)
    _compare(declared, header)
    try:
        with safetensors.safe_open(str(weights), framework="pt", device="cpu") as opened:
            # copies: what safetensors returns may still be backed by the file
            tensors = {name: opened.get_tensor(name).clone() for name in header}
    except (safetensors.SafetensorError, OSError) as error:
        raise BundleError(f"{weights} cannot be read: {error}; {ADVICE}") from error
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"tensor {name!r} of {folder} holds NaN or infinity; {ADVICE}")
    return build_field(described, StoredTensors(tensors), scene)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """A file and its size; anything but a plain file is refused, since opening a pipe would wait for ever."""
    try:
        if not path.is_file():
            raise BundleError(f"{path} is not there or no file: a bundle is a folder with {DESCRIPTION} and {WEIGHTS}")
        with path.open("rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from error


def _header(file: BinaryIO, where: str, size: int, max_bytes: int) -> dict[str, tuple[str, list[int]]]:
    """Dtype and shape of every tensor, from the first bytes alone; the sizes are checked against the file's."""
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(DESCRIPTION_LIMIT, size - 8):
        raise BundleError(
            f"{where} has {size} bytes and its header claims {length}; {DESCRIPTION_LIMIT} are allowed; {ADVICE}"
        )
    entries = parse_object(file.read(length), f"the header of {where}")
    entries.pop("__metadata__", None)
    described, total = {}, 0
    for name, entry in entries.items():
        spec = Spec(entry, f"the header of {where}: {name[:60]!r}")
        code, shape = spec.text("dtype", DTYPES), list(spec.integers("shape", 0, 1 << 40, 8))
        offsets = spec.integers("data_offsets", 0, 1 << 50, 2)
        spec.close()
        count = math.prod(shape) * torch.empty(0, dtype=DTYPES[code]).element_size()
        if offsets[-1] - offsets[0] != count:
            raise BundleError(f"{spec.where} takes bytes {list(offsets)} where {code} {shape} needs {count}; {ADVICE}")
        described[name], total = (code, shape), total + count
    if total > max_bytes:
        raise BundleError(
            f"{where} holds {total} bytes of tensors, at most {max_bytes} are allowed: pass max_bytes={total} to "
            "load_bundle if you trust it"
        )
    if 8 + length + total != size:
        raise BundleError(f"{where} has {size} bytes, its header describes {8 + length + total}; {ADVICE}")
    return described


def _compare(declared: Spec, header: dict[str, tuple[str, list[int]]]) -> None:
    """Refuses tensors that the weights' header does not describe as bundle.json does."""
    known = set(declared.names())
    for name, (code, shape) in header.items():
        if name not in known:
            raise BundleError(f"{WEIGHTS} holds a tensor {name[:60]!r} that {DESCRIPTION} does not list; {ADVICE}")
        entry = declared.part(name)
        dtype = entry.text("dtype", _NAMES)
        listed = list(entry.integers("shape", 0, 1 << 40, 8))
        entry.close()
        if _NAMES[dtype] != code or listed != shape:
            raise BundleError(
                f"tensor {name[:60]!r} is {code} {shape} in {WEIGHTS}, but {dtype} {listed} in {DESCRIPTION}; {ADVICE}"
            )
    missing = declared.names()
    if missing:
        raise BundleError(f"{WEIGHTS} lacks the tensor {missing[0][:60]!r} that {DESCRIPTION} lists; {ADVICE}")


def _safetensors() -> Any:
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise BundleError("bundles need the package safetensors, which is absent: pip install safetensors") from error
    return safetensors
