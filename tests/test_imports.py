"""What is loaded when, which way imports run, and that nothing unpickles or evaluates."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import fsseg_sdk
from tests.data import REPOSITORY

PACKAGE = REPOSITORY / "fsseg_sdk"
FILES = sorted(PACKAGE.rglob("*.py"))
CHECKOUT = [
    *FILES,
    *(
        path
        for name in ("training", "export", "benchmarks")
        for path in (REPOSITORY / name).rglob("*.py")
    ),
]

# Which parts of the package each part may import; a part is a folder or a file of fsseg_sdk.
# segmenter -> methods -> ops -> kernels, and segmenter -> bundle, backends; nothing goes back.
# Graphs on a device take and give the arrays of ops.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "ops": {"errors", "_kernels"},
    "engines": {"errors", "fields"},
    "backends": {"errors", "fields", "engines", "ops"},
    "methods": {"errors", "ops", "backends", "fields"},
    "archive": {"errors", "fields"},
    "formats": {"errors"},
    "image": {"errors", "formats", "decode", "arrays"},
    "frame": {"errors", "formats", "arrays", "image", "ops"},
    "seen": {"image"},
    "auxiliary": {"errors", "image", "seen"},
    "support": {"errors", "annotation", "auxiliary", "classes", "image", "seen"},
    "preprocess": {"errors", "image", "ops"},
    "result": {"errors", "image", "preprocess", "overlay", "saving"},
    "bundle": {"errors", "archive", "backends", "fields", "manifest", "npy"},
}
ABOVE_ALL = {"segmenter", "verify", "doctor", "cli"}  # what nothing below may import
FORBIDDEN = {"torch", "torchvision", "training", "export", "benchmarks", "tests", "examples"}
THIRD_PARTY = {
    "numpy": "",
    "PIL": "",
    "onnxruntime": "backends",
    "openvino": "backends",
    "cv2": "cli",
}
UNSAFE_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
}


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=REPOSITORY,
    ).stdout


def imports(tree: ast.AST, package: str) -> Iterator[tuple[str, bool]]:
    """(absolute module name, whether at module level) of all imports that run."""
    skipped: set[ast.AST] = set()
    inner: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped.update(child for part in node.body for child in ast.walk(part))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inner.update(ast.walk(node))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node not in inner
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join(parents[: len(parents) - node.level + 1] + ([base] if base else []))
            for alias in node.names:
                yield f"{base}.{alias.name}", node not in inner


def package_of(path: Path) -> str:
    return ".".join(path.parent.relative_to(REPOSITORY).parts)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


# --- what is loaded -----------------------------------------------------------------------------


def test_importing_the_package_loads_nothing_else() -> None:
    code = """
import sys
before = set(sys.modules)
import fsseg_sdk
import json
print(json.dumps(sorted(name for name in set(sys.modules) - before)))
"""
    loaded = json.loads(run_python(code))
    tops = {name.split(".")[0] for name in loaded} - sys.stdlib_module_names
    assert tops == {"fsseg_sdk"}
    ours = {name for name in loaded if name.startswith("fsseg_sdk")}
    assert ours == {"fsseg_sdk", "fsseg_sdk.errors"}


def test_the_public_names_load_no_runtime() -> None:
    code = """
import sys
import fsseg_sdk
for name in fsseg_sdk.__all__:
    getattr(fsseg_sdk, name)
print(sorted({"PIL", "onnxruntime", "torch", "cv2"} & set(sys.modules)))
"""
    assert run_python(code).strip() == "[]"


def test_no_module_of_the_package_loads_torch() -> None:
    names = [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for path in FILES
        if path.stem != "__main__"
    ]
    code = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
print(sorted({FORBIDDEN!r} & set(sys.modules)))
"""
    assert run_python(code).strip() == "[]"


def test_public_names() -> None:
    assert set(fsseg_sdk.__all__) <= set(dir(fsseg_sdk))
    assert fsseg_sdk.__version__.count(".") == 2
    assert fsseg_sdk.Box.__module__ == "fsseg_sdk.annotation"
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        fsseg_sdk.absent  # noqa: B018


# --- which way imports run ----------------------------------------------------------------------


@cache
def edges_of(path: Path) -> tuple[tuple[str, bool], ...]:
    return tuple(imports(parse(path), package_of(path)))


def graph(top_level_only: bool) -> dict[str, set[str]]:
    """Parts of fsseg_sdk, and the parts that each imports."""
    edges: dict[str, set[str]] = {}
    for path in FILES:
        if path == PACKAGE / "__init__.py":
            continue
        part = part_of(path)
        for name, at_top in edges_of(path):
            pieces = name.split(".")
            if pieces[0] == "fsseg_sdk" and len(pieces) > 1 and (at_top or not top_level_only):
                edges.setdefault(part, set()).add(pieces[1])
        edges.setdefault(part, set()).discard(part)
    return {
        part: {t for t in targets if t in edges or t == "_kernels"}
        for part, targets in edges.items()
    }


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_parts_import_what_they_may(part: str) -> None:
    assert graph(top_level_only=False)[part] <= MAY_IMPORT[part]


def test_only_ops_touches_the_kernels() -> None:
    users = {part for part, targets in graph(False).items() if "_kernels" in targets}
    assert users == {"ops"}


def test_nothing_imports_what_stands_above() -> None:
    for part, targets in graph(False).items():
        if part not in ABOVE_ALL:
            assert not targets & ABOVE_ALL, part


def test_imports_have_one_direction() -> None:
    """No cycle among what modules import when they are loaded."""
    edges = graph(top_level_only=True)
    while edges:
        leaves = [part for part, targets in edges.items() if not targets & set(edges)]
        assert leaves, f"a cycle among {sorted(edges)}"
        for part in leaves:
            del edges[part]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_only_listed_packages_are_imported(path: Path) -> None:
    for name, at_top in edges_of(path):
        top = name.split(".")[0]
        if top in sys.stdlib_module_names or top in ("fsseg_sdk", "numpy"):
            continue
        assert top in THIRD_PARTY, f"{top} is not a dependency of the runtime"
        assert part_of(path).startswith(THIRD_PARTY[top]), f"{top} in {path}"
        assert top != "PIL" or not at_top, "Pillow is loaded when a file is"


# --- what must not be there ---------------------------------------------------------------------


def unsafe(source: str, package: str = "fsseg_sdk") -> list[str]:
    """Ways to run code that comes in as data."""
    tree = ast.parse(source)
    found = [
        name
        for name, _ in imports(tree, package)
        if name.split(".")[0] in UNSAFE_MODULES and name != "pickle.UnpicklingError"
    ]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in ("eval", "exec", "compile", "__import__"):
            found.append(called)
        settings = {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg}
        if settings.get("allow_pickle", "False") != "False":
            found.append("allow_pickle")
        if settings.get("weights_only", "True") != "True":
            found.append("weights_only")
        if called == "torch.load" and "weights_only" not in settings:
            found.append("torch.load without weights_only=True")
        if called in ("np.load", "numpy.load") and settings.get("allow_pickle") != "False":
            found.append("numpy.load without allow_pickle=False")
    return found


@pytest.mark.parametrize("path", CHECKOUT, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_nothing_unpickles_or_evaluates(path: Path) -> None:
    assert unsafe(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import shelve",
        "import joblib.numpy_pickle",
        "eval('1')",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=flag)",
        "np.lib.format.read_array(f, allow_pickle=True)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
    ],
)
def test_the_gate_sees_unsafe_code(source: str) -> None:
    assert unsafe(source)


def test_the_gate_lets_safe_code_pass() -> None:
    assert unsafe("import json\nnp.load(f, allow_pickle=False)\nre.compile('a')\n") == []
    assert unsafe("from pickle import UnpicklingError") == []  # an error runs nothing
    assert unsafe("torch.load(f, weights_only=True)") == []
