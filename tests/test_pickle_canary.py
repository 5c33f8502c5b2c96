"""Nothing that is loaded is ever executed: a pickle that would leave a trace never does."""

from __future__ import annotations

import ast
import io
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fsseg_sdk import FssegError, Segmenter
from fsseg_sdk.backends import open_graph
from fsseg_sdk.bundle import Bundle
from fsseg_sdk.errors import BundleError
from fsseg_sdk.fields import Refusal
from fsseg_sdk.npy import read_npy
from tests.archives import edited, forged, sealed
from tests.test_onnx_safety import SPEC
from tests.tiny import tiny_bundle

ROOT = Path(__file__).resolve().parents[1]


class Canary:
    """Unpickling it creates a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[Path]:
    """Where the canary would show; checked after the test."""
    path = tmp_path / "executed"
    yield path
    assert not path.exists()


def pickles(trace: Path) -> list[bytes]:
    """The canary by every protocol, alone and in numpy's format for objects."""
    plain = [pickle.dumps(Canary(trace), protocol) for protocol in range(6)]
    file = io.BytesIO()
    np.save(file, np.array([Canary(trace)], dtype=object), allow_pickle=True)
    return [*plain, file.getvalue()]


def test_the_canary_sings(tmp_path: Path) -> None:
    for index, data in enumerate(pickles(tmp_path / "executed")):
        if index < 6:
            pickle.loads(data)  # noqa: S301 (to see that it would act)
        else:
            np.load(io.BytesIO(data), allow_pickle=True)
        assert (tmp_path / "executed").exists()
        (tmp_path / "executed").unlink()


def test_as_a_bundle(tmp_path: Path, trace: Path) -> None:
    for data in pickles(trace):
        for attack in (data, sealed(data, {}), b"PK\3\4" + data, forged({}, {"x.pkl": data})):
            (tmp_path / "x.fsseg").write_bytes(attack)
            with pytest.raises(BundleError):
                Bundle.open(tmp_path / "x.fsseg")
            with pytest.raises(BundleError):
                Segmenter.load(tmp_path / "x.fsseg")


@pytest.mark.parametrize(
    "member",
    ["encoder.onnx", "golden/image.npy", "golden/mask.npy", "golden/features.npy",
     "golden/labels.npy"],
)  # fmt: skip
def test_as_a_member(tmp_path: Path, trace: Path, member: str) -> None:
    for data in pickles(trace):
        path = tiny_bundle(tmp_path / "x.fsseg")
        edited(path, lambda manifest, members, data=data: members.update({member: data}))
        with pytest.raises(BundleError, match=f"member '{member}'"):
            Bundle.open(path)


def test_as_an_onnx_file(trace: Path) -> None:
    for data in pickles(trace):
        with pytest.raises(FssegError):
            open_graph(data, SPEC)


def test_as_an_array(trace: Path) -> None:
    refuse = Refusal(BundleError, "file", "None.")
    for data in pickles(trace):
        for dtype in ("uint8", "float32", "object"):
            with pytest.raises(BundleError):
                read_npy(data, "array", refuse, dtype=dtype, shape=[-1])


def test_in_the_manifest(tmp_path: Path, trace: Path) -> None:
    """Text that some loaders (yaml, old numpy headers) would evaluate is text here."""
    evil = f"__import__('pathlib').Path({str(trace)!r}).touch()"
    path = tiny_bundle(tmp_path / "x.fsseg")
    edited(path, lambda manifest, members: manifest["provenance"].update({"!!python/x": evil}))
    Segmenter.load(path)
    header = f"{{'descr': {evil}, 'fortran_order': False, 'shape': (3,), }}\n".encode()
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(3)
    with pytest.raises(BundleError):
        read_npy(data, "array", Refusal(BundleError, "f", "r"), dtype="uint8", shape=[-1])


# --- the sources ---------------------------------------------------------------------------------

EXECUTING = {
    "pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "yaml",
    "torch", "onnx", "code", "runpy",
}  # fmt: skip
CALLS = {"eval", "exec", "compile", "__import__"}


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def violations(tree: ast.AST, *, runtime: bool) -> Iterator[str]:
    """What could execute data that was read from a file."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and runtime:
            module = getattr(node, "module", None) or ""
            names = [module] if module else [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom) and node.level:
                names = []
            yield from (name for name in names if name.split(".")[0] in EXECUTING)
        if isinstance(node, ast.Call):
            function = ast.unparse(node.func)
            if runtime and function in CALLS | {"np.load", "numpy.load"}:
                yield function
            if function.split(".")[0] in {"pickle", "dill", "joblib", "cloudpickle"}:
                yield function
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if keywords.get("weights_only", "True") != "True":
                yield f"{function}(weights_only={keywords['weights_only']})"
            if keywords.get("allow_pickle", "False") != "False":
                yield f"{function}(allow_pickle={keywords['allow_pickle']})"
            if function == "torch.load" and "weights_only" not in keywords:
                yield "torch.load without weights_only"


@pytest.mark.parametrize("folder", ["fsseg_sdk", "training", "export", "benchmarks", "examples"])
def test_no_source_unpickles(folder: str) -> None:
    files = sources(folder)
    if folder == "fsseg_sdk":
        assert len(files) > 20
    found = [
        f"{path.relative_to(ROOT)}: {what}"
        for path in files
        for what in violations(ast.parse(path.read_text("utf-8")), runtime=folder == "fsseg_sdk")
    ]
    assert not found


def test_the_gate_itself() -> None:
    """It sees what it is there for."""
    for code in (
        "import pickle", "from pickle import loads", "import torch.nn", "eval(x)", "np.load(f)",
        "np.load(f, allow_pickle=True)", "torch.load(f)", "torch.load(f, weights_only=False)",
        "joblib.load(f)", "from yaml import load",
    ):  # fmt: skip
        assert list(violations(ast.parse(code), runtime=True)), code
    for code in ("from .pickle import x", "torch.load(f, weights_only=True)", "x.compile()"):
        assert not list(violations(ast.parse(code), runtime=False)), code


def test_the_runtime_loads_neither_torch_nor_onnx(tmp_path: Path) -> None:
    path = tiny_bundle(tmp_path / "x.fsseg")
    code = (
        "import sys\nimport fsseg_sdk\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "fsseg_sdk.Segmenter.load(sys.argv[1])\n"
        "heavy = {'torch', 'onnx', 'yaml', 'dill'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
