"""Bundles: what is written is read bit for bit, and nothing else is."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import KINDS, evaluate, make, network

from eugen_nerf.core import BundleError, ConfigError, DistanceBundle, load_bundle, save_bundle
from eugen_nerf.core.choices import Product
from eugen_nerf.core.layers.products import PRODUCTS

pytest.importorskip("safetensors")
ROOT = Path(__file__).resolve().parents[3]
JSON, WEIGHTS = "bundle.json", "weights.safetensors"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A written bundle of the kind with the most parts."""
    save_bundle(make("moving"), tmp_path / "bundle")
    return tmp_path / "bundle"


def change(bundle: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Rewrites bundle.json."""
    document = json.loads((bundle / JSON).read_text())
    edit(document)
    (bundle / JSON).write_text(json.dumps(document))


def change_tensors(bundle: Path, edit: Callable[[dict[str, torch.Tensor]], None], *, declare: bool = True) -> None:
    """Rewrites the weights and, on request, their list in bundle.json."""
    from safetensors.torch import load_file, save_file

    tensors = {n: t.clone() for n, t in load_file(bundle / WEIGHTS).items()}
    edit(tensors)
    save_file(tensors, bundle / WEIGHTS)
    if declare:
        listed = {n: {"dtype": str(t.dtype)[6:], "shape": list(t.shape)} for n, t in tensors.items()}
        change(bundle, lambda d: d.update(tensors=listed))


def refused(bundle: Path, message: str, **settings: Any) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(bundle, **settings)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_written_and_read_it_answers_bit_for_bit(kind: str, tmp_path: Path) -> None:
    field = make(kind)
    save_bundle(field, tmp_path / "deep" / "bundle")
    read = load_bundle(tmp_path / "deep" / "bundle")
    assert not read.training
    assert not any(p.requires_grad for p in read.parameters())
    for a, b in zip(evaluate(field), evaluate(read), strict=True):
        assert a.isfinite().all()
        assert a.std() > 0
        assert torch.equal(a, b)
    assert sorted(p.name for p in (tmp_path / "deep" / "bundle").iterdir()) == [JSON, WEIGHTS]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["bundle"]


@pytest.mark.parametrize("product", PRODUCTS)
def test_networks_of_every_product(product: Product, tmp_path: Path) -> None:
    """The plain product is not named, so that versions that know no other read such a file."""
    encoding = make("distance").position
    field = DistanceBundle(encoding, network((encoding.out_features,), output="distance", product=product), 0.14)
    save_bundle(field, tmp_path / "bundle")
    (found,), (expected,) = evaluate(load_bundle(tmp_path / "bundle")), evaluate(field)
    assert torch.equal(found, expected)
    steps = json.loads((tmp_path / "bundle" / JSON).read_text())["field"]["network"]["steps"]
    assert {step.get("product", "plain") for step in steps if step["degree"] == 2} == {product}
    assert any("product" in step for step in steps) == (product != "plain")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_other_dtypes(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    field, cast = make(kind), make(kind).cast(dtype)
    save_bundle(cast, tmp_path / "bundle")
    read = load_bundle(tmp_path / "bundle")
    assert {n.dtype for n in read.networks().values()} == {dtype}
    for single, a, b in zip(evaluate(field), evaluate(cast), evaluate(read), strict=True):
        assert torch.equal(a, b)
        assert a.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        if kind != "moving":  # there a rounded offset may lead into another cell
            tolerance = {torch.float64: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.3}[dtype]
            assert (a - single).abs().max() <= tolerance * single.abs().max()


def test_it_loads_where_nerfstudio_cannot_be_imported(bundle: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('nerfstudio', 'onnx', 'onnxruntime', 'tyro', 'rich', 'scipy'): sys.modules[name] = None\n"
        "import torch\n"
        "from eugen_nerf.core import load_bundle\n"
        f"field = load_bundle({str(bundle)!r})\n"
        "density, colour = field(torch.zeros(2, 3), torch.ones(2, 3), torch.ones(2, 1))\n"
        "print(density.shape, colour.shape, float(colour[0, 0]))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _, colour = load_bundle(bundle)(torch.zeros(2, 3), torch.ones(2, 3), torch.ones(2, 1))
    assert done.stdout.strip() == f"torch.Size([2, 1]) torch.Size([2, 3]) {float(colour[0, 0])}"


def test_without_safetensors_it_says_what_to_install(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    refused(bundle, "pip install safetensors")
    with pytest.raises(BundleError, match="pip install safetensors"):
        save_bundle(make("distance"), bundle.parent / "other")
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


def test_an_existing_place_is_left_alone(bundle: Path) -> None:
    before = (bundle / JSON).read_bytes()
    with pytest.raises(BundleError, match="exists: choose another name"):
        save_bundle(make("distance"), bundle)
    assert (bundle / JSON).read_bytes() == before
    with pytest.raises(BundleError, match="cannot write"):
        save_bundle(make("distance"), bundle / JSON / "inside")


@pytest.mark.parametrize("broken", [JSON, WEIGHTS])
def test_a_full_disk_leaves_nothing(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    def full(*args: object, **settings: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if broken == JSON:
        monkeypatch.setattr(Path, "write_bytes", full)
    else:
        monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(BundleError, match="No space left on device; free some space"):
        save_bundle(make("distance"), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_a_limit_on_file_sizes_leaves_nothing(tmp_path: Path) -> None:
    """As a full disk, met by the library that writes the weights."""
    field, (soft, hard) = make("pyramid"), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
        with pytest.raises(BundleError, match="cannot write"):
            save_bundle(field, tmp_path / "bundle")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", [JSON, WEIGHTS])
def test_missing_files(bundle: Path, missing: str) -> None:
    (bundle / missing).unlink()
    refused(bundle, f"{missing} is not there or no file")
    os.mkfifo(bundle / missing)  # opening a pipe that nobody writes to would wait for ever
    refused(bundle, f"{missing} is not there or no file")


@pytest.mark.parametrize(("version", "advice"), [(3, "update eugen_nerf"), (0, "write it again")])
def test_another_version(bundle: Path, version: int, advice: str) -> None:
    change(bundle, lambda d: d.update(version=version, news={}))
    refused(bundle, f"of version {version}; this eugen_nerf reads versions 1 to 2: {advice}")


def first_step(document: dict[str, Any]) -> dict[str, Any]:
    step: dict[str, Any] = document["field"]["network"]["steps"][0]
    return step


EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "format": (lambda d: d.update(format="zip"), "format is 'zip'; it must be one of eugen_nerf bundle"),
    "no version": (lambda d: d.pop("version"), "lacks 'version'"),
    "version's type": (lambda d: d.update(version=True), "version is true; it must be a whole number"),
    "unknown entry": (lambda d: d.update(code="import os"), "this version does not know: 'code'"),
    "kind": (lambda d: d["field"].update(kind="voxels"), "kind is 'voxels'; it must be one of distance, radiance"),
    "encoding": (lambda d: d["field"]["position"].update(kind="off_axis"), "must be one of box, contracted"),
    "activation": (
        lambda d: first_step(d).update(phi="system"),
        "phi: activation 'system' is unknown; choose one of cos",
    ),
    "product": (lambda d: first_step(d).update(product="dot"), "product is 'dot'; it must be one of clamped, harmonic"),
    "lone product": (
        lambda d: first_step(d).update(product="harmonic", degree=1),
        "has the product harmonic in degree 1, it is of degree 2",
    ),
    "odd parameter": (lambda d: first_step(d).update(phi="elu(1.2.3)"), "phi: could not convert"),
    "long word": (lambda d: first_step(d).update(phi="elu(1" + "0" * 99 + ")"), "a text of at most 64 characters"),
    "density": (lambda d: d["field"].update(density="sin"), "density is 'sin'; it must be one of exp"),
    "later value": (lambda d: first_step(d).update(reads=[2]), "must be a whole number from 0 to 1"),
    "no reads": (lambda d: first_step(d).update(reads=[]), "must be a list of 1 to"),
    "other reads": (lambda d: first_step(d).update(reads=[1]), "the description needs floating point"),
    "degree": (lambda d: first_step(d).update(degree=3, shared=True), "8 rows for 3 equal projections"),
    "factors": (lambda d: first_step(d).update(factors=[3]), "factors is a list of 1; it must be a list of 0"),
    "huge": (lambda d: first_step(d).update(rows=10**30), "rows is a very large number"),
    "flag": (lambda d: first_step(d).update(bias=1), "bias is 1; it must be true or false"),
    "infinite": (lambda d: d["field"].update(density_bias=float("inf")), "not valid JSON: Infinity"),
    "not a number": (lambda d: d["field"].update(density_bias=float("nan")), "not valid JSON: NaN"),
    "too large": (lambda d: d["field"].update(density_bias=1e300), "must be a number from -10000 to 10000"),
    "inputs": (lambda d: d["field"]["network"].update(inputs=[3, 3]), r"its encodings bring \[6, 15\]"),
    "grid": (lambda d: d["field"]["position"].update(log2_table_size=20), "the description needs floating point"),
    "great grid": (lambda d: d["field"]["position"].update(resolutions=[1 << 20] * 32), "the description needs"),
    "no head": (lambda d: d["field"].update(direction=None), "its encodings bring"),
    "still": (lambda d: d["field"].update(deformation=None), "does not use: 'deformation"),
    "output": (lambda d: d["field"]["network"]["outputs"].pop(), "has outputs of widths"),
    "list": (lambda d: d.update(field=[]), "bundle.json.field must be an object, not a list of 0"),
    "unlisted": (lambda d: d["tensors"].pop("position.aabb"), "'position.aabb' that bundle.json does not list"),
    "not there": (lambda d: d["tensors"].update(x={"dtype": "float32", "shape": [1]}), "lacks the tensor 'x'"),
    "other shape": (lambda d: d["tensors"]["position.aabb"].update(shape=[3, 2]), r"but float32 \[3, 2\] in"),
    "other dtype": (lambda d: d["tensors"]["position.aabb"].update(dtype="float16"), "but float16"),
    "strange dtype": (lambda d: d["tensors"]["position.aabb"].update(dtype="int64"), "dtype is 'int64'; it must be"),
}


@pytest.mark.parametrize("name", list(EDITS))
def test_descriptions_that_are_wrong(bundle: Path, name: str) -> None:
    edit, message = EDITS[name]
    change(bundle, edit)
    refused(bundle, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"[]", "must hold a JSON object, not a list of 0"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"version": 1, "version": 2}', "a name is given twice"),
        (b'{"format": ' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b" " * (4 << 20) + b"{}", "a bundle allows 4194304"),
    ],
)
def test_texts_that_are_no_description(bundle: Path, text: bytes, message: str) -> None:
    (bundle / JSON).write_bytes(text)
    refused(bundle, message)


def test_tensors_that_are_wrong(bundle: Path) -> None:
    name = "network.step0_weight"
    change_tensors(bundle, lambda t: t.update({name: t[name][:, :-1].contiguous()}))
    refused(bundle, rf"tensor '{name}' is float32 \[8, 5\], the description needs floating point \[8, 6\]")
    change_tensors(bundle, lambda t: t.pop(name))
    refused(bundle, f"needs the tensor '{name}', which is not there")


def edit_tensor(name: str, value: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.update({name: value(tensors[name])})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.update(more=torch.zeros(2)), "does not use: 'more'"),
        (edit_tensor("position.grid.table", lambda v: v.index_fill(0, torch.tensor(7), torch.nan)), "holds NaN"),
        (edit_tensor("network.step0_weight", lambda v: v / 0), "holds NaN or infinity"),
        (edit_tensor("network.step0_weight", lambda v: v.double()), "mixes float32 and float64"),
        (edit_tensor("network.step0_weight", lambda v: v.to(torch.uint8)), "the description needs floating point"),
        (edit_tensor("network.step0_weight", lambda v: v.to(torch.int8)), "dtype is 'I8'; it must be one of"),
        (edit_tensor("occupancy.cells", lambda v: v.float()), "the description needs whole"),
        (edit_tensor("position.aabb", lambda v: v.flip(0)), "the box 'position.aabb' is empty"),
    ],
)
def test_tensors_that_cannot_be_used(bundle: Path, edit: Any, message: str) -> None:
    change_tensors(bundle, edit)
    refused(bundle, message)


def test_more_bytes_than_allowed(bundle: Path) -> None:
    size = (bundle / WEIGHTS).stat().st_size
    header = struct.unpack("<Q", (bundle / WEIGHTS).read_bytes()[:8])[0]
    total = size - header - 8
    refused(bundle, f"holds {total} bytes of tensors, at most {total - 1} are allowed", max_bytes=total - 1)
    load_bundle(bundle, max_bytes=total)


def test_a_header_may_not_claim_more_than_there_is(bundle: Path) -> None:
    weights = (bundle / WEIGHTS).read_bytes()
    (bundle / WEIGHTS).write_bytes(struct.pack("<Q", 1 << 62) + weights[8:])
    refused(bundle, "its header claims 4611686018427387904")
    (bundle / WEIGHTS).write_bytes(weights + b"\0")
    refused(bundle, f"has {len(weights) + 1} bytes, its header describes {len(weights)}")


@pytest.mark.parametrize("name", [JSON, WEIGHTS])
def test_cut_off_anywhere(bundle: Path, name: str) -> None:
    whole = (bundle / name).read_bytes()
    for length in sorted({*range(24), *range(0, len(whole), max(1, len(whole) // 60)), len(whole) - 1}):
        (bundle / name).write_bytes(whole[:length])
        refused(bundle, name)


def test_calls_that_do_not_fit() -> None:
    points, towards, times = torch.zeros(4, 3), torch.ones(4, 3), torch.zeros(4, 1)
    still, moving, distance = make("frequency"), make("moving"), make("distance")
    with pytest.raises(ConfigError, match=r"needs directions: call bundle\(positions, directions\)"):
        still(points)
    with pytest.raises(ConfigError, match=r"takes no times: call bundle\(positions, directions\)"):
        still(points, towards, times)
    with pytest.raises(ConfigError, match=r"needs times: call bundle\(positions, directions, times\)"):
        moving(points, towards)
    with pytest.raises(ConfigError, match=r"positions must be a tensor \[..., 3\], got \[4, 1\]"):
        distance(times)
    with pytest.raises(ConfigError, match="their leading shapes differ"):
        still(points, torch.ones(3, 3))
    one = still(points, towards[0])  # one direction for all
    assert torch.equal(one[0], still(points, towards)[0])


def test_points_that_are_no_numbers_break_nothing(kind: str) -> None:
    if kind == "distance":
        return
    points = torch.tensor([[torch.nan] * 3, [torch.inf] * 3, [1e30] * 3, [0.0] * 3])
    times = torch.ones(4, 1) if kind == "moving" else None
    density, colour = make(kind)(points, torch.ones(4, 3), times, scale=0.1)
    assert density[3].isfinite().all()
    assert colour[3].isfinite().all()
    assert make(kind)(points[:0], torch.ones(0, 3), None if times is None else times[:0])[0].shape == (0, 1)
