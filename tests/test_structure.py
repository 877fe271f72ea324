"""The shape of the code, read from its sources: imports run one way, files stay short, core stands alone."""

import ast
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "eugen_nerf"
KERNELS = (
    "compositing_kernels",
    "fused_kernel",
    "fused_functions",
    "gaussian_kernels",
    "marching_kernels",
    "grid_kernels",
    "multisample_kernels",
    "product_kernels",
    "numba_loops",
)
"""Modules of core that need triton or numba."""
VIEWER = ROOT / "viewer" / "eugen_viewer"
"""A package of its own: it may import all parts but the commands, and the commands alone import it."""
ALLOWED = {
    "core": set(),
    "web": {"core"},
    "benchmarks": {"core"},
    "studies": {"core"},
    "fields": {"core"},
    "data": {"core"},
    "methods": {"fields", "data", "core"},
    "conversion": {"methods", "data", "fields", "web", "core"},
    "surfaces": {"methods", "data", "core", "fields"},
    "evaluation": {"surfaces", "methods", "data", "core", "fields", "studies", "benchmarks"},
    "gpu_day": {"evaluation", "methods", "data", "core", "benchmarks"},
}
"""What each part of the package may import besides itself; `cli` and the scripts may import anything."""
STANDARD = set(sys.stdlib_module_names)
LARGEST_ROOM = 15
"""Files in one folder, `__init__.py` among them."""
METHODS = {"nerf.py", "mipnerf360.py", "zipnerf.py", "isdf.py"}
"""Names of a field and of its method: their paths stand in every run's `config.yml`."""
BLOCKER = """
import sys
from importlib.abc import MetaPathFinder
class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is blocked by the test")
sys.meta_path.insert(0, Blocker())
"""


def _imports(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Absolute dotted names of everything imported anywhere in the file, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + int(is_package)]
                base = ".".join([*parts, base]).strip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _sources(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*.py") if "__pycache__" not in p.parts)


def _module(path: Path) -> str:
    root = VIEWER.parent if VIEWER in path.parents else ROOT
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


@cache
def _imported_by(path: Path) -> frozenset[str]:
    return frozenset(_imports(path.read_text(), _module(path), path.name == "__init__.py"))


def _circles(imports: Mapping[str, Collection[str]]) -> list[set[str]]:
    """Sets of more than one module each of which leads to every other (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in imports[name]:
            if other not in index:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == index[name]:
            circle = set(stack[stack.index(name) :])
            del stack[stack.index(name) :]
            if len(circle) > 1:
                found.append(circle)

    for name in imports:
        if name not in index:
            visit(name)
    return found


def _parts_of_package(names: Collection[str]) -> set[str]:
    """Sub-packages of eugen_nerf among imported names."""
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir()}
    return {n.split(".")[1] for n in names if n.startswith("eugen_nerf.") and n.split(".")[1] in folders}


def _run(code: str, *blocked: str) -> subprocess.CompletedProcess[str]:
    code = BLOCKER.format(blocked=set(blocked)) + code
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_the_reader_of_imports_sees_every_form() -> None:
    source = "import a.b\nfrom c import d\ndef f():\n    from . import g\n    from ..h.i import j\n"
    assert set(_imports(source, "p.q.r", False)) == {"a.b", "c", "c.d", "p.q", "p.q.g", "p.h.i", "p.h.i.j"}
    assert set(_imports("from .x import y", "p.q", True)) == {"p.q.x", "p.q.x.y"}


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_imports_run_one_way(part: str) -> None:
    files = _sources(PACKAGE / part)
    assert files
    for path in files:
        wrong = _parts_of_package(_imported_by(path)) - ALLOWED[part] - {part}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}; {part} may import {sorted(ALLOWED[part])}"


def test_every_part_of_the_package_has_a_rule() -> None:
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and _sources(p)}
    assert folders <= set(ALLOWED) | {"cli"}


def test_nobody_imports_the_commands_or_the_scripts() -> None:
    scripts = {p.stem for p in _sources(ROOT / "scripts")} - STANDARD
    for path in [*_sources(PACKAGE), *_sources(VIEWER)]:
        names = _imported_by(path)
        if PACKAGE / "cli" not in path.parents:
            assert "cli" not in _parts_of_package(names), path
        assert not {n.split(".")[0] for n in names} & ({"scripts"} | scripts), path


def test_only_the_commands_import_the_viewer() -> None:
    assert _sources(VIEWER)
    for path in _sources(PACKAGE):
        if PACKAGE / "cli" not in path.parents:
            assert "eugen_viewer" not in {n.split(".")[0] for n in _imported_by(path)}, path


def test_the_commands_load_the_viewer_when_it_is_asked_for_and_not_before() -> None:
    done = _run("import eugen_nerf.cli.view, sys; print('viser' in sys.modules)", "viser", "nerfstudio")
    assert done.stdout.split() == ["False"], done.stderr


def test_core_imports_only_torch_and_the_standard_library() -> None:
    """Some packages are allowed inside functions: they are needed when a bundle is read or written, not before. The
    kernels' modules need triton and numba, so that they count as such packages themselves."""
    late = {"safetensors", "onnx", "onnxruntime", "triton", "numba", "numpy"}
    kernels = ("eugen_nerf.core.inference.fused_kernel", "eugen_nerf.core.encodings.grid_kernels")
    for path in _sources(PACKAGE / "core"):
        names = _imported_by(path)
        foreign = {n.split(".")[0] for n in names} - STANDARD - late - {"torch", "eugen_nerf"}
        assert not foreign, f"{path.relative_to(ROOT)} imports {sorted(foreign)}"
        inside = {n for n in names if n.startswith("eugen_nerf")} - {"eugen_nerf"}
        assert all(n.startswith("eugen_nerf.core") for n in inside), path
        top = ast.Module([n for n in ast.parse(path.read_text()).body if not isinstance(n, ast.FunctionDef)], [])
        outside = set(_imports(ast.unparse(top), "eugen_nerf.core", True))
        if path.stem not in KERNELS:
            assert not {n.split(".")[0] for n in outside} & late, path
        assert not [n for n in outside if n.startswith(kernels)], path


def test_core_works_without_nerfstudio() -> None:
    modules = [_module(p) for p in _sources(PACKAGE / "core") if p.stem not in KERNELS]
    code = (
        f"import importlib; [importlib.import_module(n) for n in {modules!r}]\n"
        "import torch; from eugen_nerf.core import NeRFShape, Replacement, build_variant\n"
        "graph = build_variant(NeRFShape(trunk_width=8, head_width=4), 'eugen', Replacement(num_features=(2,)))\n"
        "print(graph(torch.zeros(1, 63), torch.zeros(1, 27))[1].shape[-1])"
    )
    absent = ("nerfstudio", "numpy", "scipy", "open3d", "plotly", "rich", "tyro", "imageio", "PIL")
    late = ("safetensors", "onnx", "onnxruntime")
    done = _run(code, *(a for a in absent if a != "numpy"), *late)  # torch itself looks for numpy
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "3"


def test_the_blocker_blocks() -> None:
    done = _run("import nerfstudio", "nerfstudio")
    assert done.returncode != 0
    assert "blocked by the test" in done.stderr


def test_registration_and_fields_need_no_heavy_or_absent_package() -> None:
    """What nerfstudio itself does not load when a method registers must not be loaded by us."""
    absent = ("open3d", "plotly", "timm", "tinycudann", "lpips", "skimage", "wandb", "safetensors", "dash")
    fields = [f"eugen_nerf.fields.{p.stem}" for p in _sources(PACKAGE / "fields") if p.stem != "__init__"]
    code = (
        "import importlib, sys, eugen_nerf.methods.presets.static\n"
        "print([n for n in sys.modules if n.startswith(('eugen_nerf.cli', 'eugen_nerf.evaluation', 'scripts'))])\n"
        f"[importlib.import_module(n) for n in {fields!r}]\n"
        "from eugen_nerf.fields.zipnerf import ZipNeRFFieldConfig\n"
        "ZipNeRFFieldConfig(log2_table_size=8).setup(variant='eugen')\n"
        "ZipNeRFFieldConfig(log2_table_size=8, grid='tcnn').setup(variant='eugen')\n"
    )
    done = _run(code, *absent)
    assert done.returncode == 0, done.stderr
    loaded, notice = done.stdout.strip().splitlines()[-2:]
    assert loaded == "[]"
    assert notice.startswith("tinycudann is not installed")


def _files_with(text: str) -> set[str]:
    return {str(p.relative_to(PACKAGE)) for p in _sources(PACKAGE) if text in p.read_text()}


def test_the_mode_of_an_evaluation_is_handed_down() -> None:
    """PyTorch's gradient switch is read where the mode is made of it, and where the autograd graph itself matters."""
    assert _files_with("is_grad_enabled") == {
        "core/networks/evaluation_mode.py",
        "core/layers/stage.py",  # products in the memory of their operands would spoil a graph
        "core/layers/compiled_products.py",  # compiled loops make no gradients of gradients
        "core/layers/cpu_products.py",  # oneDNN's products of a training step have gradients of ours
        "core/inference/plan.py",  # refuses inputs whose gradients it would lose
    }
    assert _files_with("EvaluationMode.current()") == {
        "core/networks/layer_graph.py",  # a network called alone
        "fields/radiance_field.py",  # what nerfstudio calls of a field: forward, get_density
        "fields/deformation.py",
        "fields/isdf.py",
        "methods/graph_model.py",  # what it calls of a model: get_outputs
    }


def test_files_stay_short() -> None:
    folders = [PACKAGE, VIEWER, ROOT / "scripts", ROOT / "tests"]
    long = {
        str(p.relative_to(ROOT)): n for f in folders for p in _sources(f) if (n := len(p.read_text().split("\n"))) > 401
    }
    assert not long, f"over 400 lines: {long}"


def test_no_room_is_crowded() -> None:
    rooms = Counter(p.parent for folder in (PACKAGE, VIEWER) for p in _sources(folder))
    crowded = {str(room.relative_to(ROOT)): n for room, n in rooms.items() if n > LARGEST_ROOM}
    assert not crowded, f"more than {LARGEST_ROOM} files: {crowded}"
    assert len(rooms) > 20


def test_no_name_stands_for_two_files_or_two_classes() -> None:
    files: dict[str, list[str]] = defaultdict(list)
    classes: dict[str, list[str]] = defaultdict(list)
    for path in (p for folder in (PACKAGE, VIEWER) for p in _sources(folder)):
        place = str(path.relative_to(ROOT))
        if path.name not in METHODS and not path.name.startswith("__"):
            files[path.name].append(place)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes[node.name].append(place)
    twice = {name: places for found in (files, classes) for name, places in found.items() if len(places) > 1}
    assert not twice


def test_no_imports_run_in_a_circle() -> None:
    """Imports inside functions count too; those of a package's own modules by its `__init__.py` do not."""
    paths = [p for folder in (PACKAGE, VIEWER) for p in _sources(folder)]
    modules = {_module(p): p for p in paths if p.name != "__init__.py"}
    circles = _circles({name: _imported_by(path) & set(modules) for name, path in modules.items()})
    assert not circles, "\n".join(" <-> ".join(sorted(circle)) for circle in circles)


def test_the_finder_of_circles_finds_them() -> None:
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [{"b", "c"}]
    assert _circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
