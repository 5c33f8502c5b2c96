"""``fsseg doctor``, ``fsseg benchmark`` and ``fsseg bundle``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsseg_sdk import __version__, doctor, methods, segmenter
from fsseg_sdk.cli import benchmark
from fsseg_sdk.cli.benchmark import STAGES, percentiles
from fsseg_sdk.doctor import drawn_picture

from .conftest import Place, Run


@pytest.fixture
def shipped(place: Place, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped bundles with the small one as the default."""
    assets = place.folder / "assets"
    assets.mkdir()
    (assets / "default.fsseg").write_bytes(place.bundle.read_bytes())
    monkeypatch.setattr(segmenter, "_ASSETS", assets)
    return assets


def test_doctor_tries_everything(shipped: Path, run: Run) -> None:
    found = run("doctor", "--json").json
    assert set(found) == {
        *("ok", "version", "methods", "backends", "simd", "simd_levels", "bf16", "cuda", "threads"),
        *("kernels", "default_bundle", "python", "packages", "machine"),
    }
    assert found["version"] == __version__
    assert found["methods"] == list(methods.names())
    assert found["simd"] in found["simd_levels"]
    assert set(found["cuda"]) == {"built", "reason", "devices"}
    (backend,) = [b for b in found["backends"] if b["name"] == "onnxruntime"]
    assert backend["available"] is True and backend["version"]
    assert found["threads"] >= 1 and found["kernels"]["ok"] is True
    assert found["default_bundle"]["name"] == "tiny"
    assert found["default_bundle"]["query_ms"] > 0


def test_doctor_in_words(shipped: Path, run: Run) -> None:
    done = run("doctor")
    heads = [line.split()[0] for line in done.out.splitlines()]
    assert heads[:4] == ["fsseg_sdk", "machine", "packages", "methods"]
    assert "backend    onnxruntime" in done.out and "works on cpu" in done.out


def test_doctor_says_no_when_the_default_bundle_is_damaged(shipped: Path, run: Run) -> None:
    path = shipped / "default.fsseg"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = run("doctor", "--json")
    assert done.code == 1
    assert done.json["ok"] is False
    assert "default.fsseg" in done.json["default_bundle"]["error"]
    assert "NOT WORKING" in run("doctor").out


def test_doctor_says_no_when_it_finds_the_wrong_thing(
    shipped: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The support's mask lies on the ground, not on the disc: all of it runs, wrongly."""
    right = doctor.drawn_picture

    def with_the_wrong_mask(width: int, height: int) -> tuple[Any, Any]:
        image, masks = right(width, height)
        return image, np.roll(masks, width // 2, axis=2)

    monkeypatch.setattr(doctor, "drawn_picture", with_the_wrong_mask)
    done = run("doctor", "--json")
    assert (done.code, done.json["ok"]) == (1, False)
    assert done.json["default_bundle"]["overlap"] < 0.5
    assert "NOT WORKING: overlap" in run("doctor").out


def test_benchmark_splits_the_time(place: Place, run: Run) -> None:
    done = run(
        *("benchmark", "--bundle", place.bundle, "--size", "320x200", "--repeat", 5),
        *("--warm-up", 1, "--ways", 2, "--threads", 1, "--out", "figures.json", "--json"),
    )
    assert done.code == 0
    report = done.json
    assert json.loads(Path("figures.json").read_text()) == report
    assert set(report["latency_ms"]) == set(STAGES)
    assert report["query"] == {"width": 320, "height": 200}
    assert (report["ways"], report["repeat"], report["threads"]) == (2, 5, 1)
    assert report["machine"]["processor"] and report["packages"]["numpy"] == np.__version__
    latency = report["latency_ms"]
    assert report["fps"] == pytest.approx(1e3 / latency["total"]["p50"], rel=1e-2)
    parts = sum(latency[stage]["mean"] for stage in STAGES if stage != "total")
    assert parts == pytest.approx(latency["total"]["mean"], rel=0.01, abs=0.01)
    words = run("benchmark", "--bundle", place.bundle, "--size", "64x64", "--repeat", 1)
    assert "FPS" in words.out and "encoder" in words.out


def test_warm_up_runs_are_not_counted(
    place: Place, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    right = benchmark.percentiles

    def counted(values: list[float]) -> dict[str, float]:
        counts.append(len(values))
        return right(values)

    monkeypatch.setattr(benchmark, "percentiles", counted)
    small = ("--bundle", place.bundle, "--size", "64x64")
    assert run("benchmark", *small, "--repeat", 4, "--warm-up", 2).code == 0
    assert counts == [4] * len(STAGES)


def test_percentiles() -> None:
    values = percentiles([float(n) for n in range(101)])
    assert values == {"min": 0, "p50": 50, "p90": 90, "p99": 99, "max": 100, "mean": 50}


@pytest.mark.parametrize("size", ["1920", "0x10", "axb", "10x-3", "10x10x10"])
def test_sizes_that_are_none(run: Run, size: str) -> None:
    done = run("benchmark", "--size", size)
    assert done.code == 2
    assert "--size" in done.err


def test_bundle_info(place: Place, run: Run) -> None:
    found = run("bundle", "info", place.bundle, "--json").json
    assert found["name"] == "tiny" and len(found["sha256"]) == 64
    assert "encoder.onnx" in found["members"]
    words = run("bundle", "info", place.bundle).out
    assert "encoder.onnx" in words and "training: none" in words


def test_bundle_verify(place: Place, run: Run) -> None:
    done = run("bundle", "verify", place.bundle, "--json")
    assert done.code == 0
    assert done.json["ok"] is True
    assert {check["name"] for check in done.json["checks"]} >= {"hashes", "golden labels"}
    assert "ok      hashes" in run("bundle", "verify", place.bundle).out


def test_bundle_verify_of_another_answer(place: Place, run: Run) -> None:
    """Whole, but it computes something else than its golden vectors say."""
    from fsseg_sdk.bundle import Bundle, write_bundle
    from fsseg_sdk.npy import write_npy
    from tests.tiny import tiny_golden, tiny_manifest, tiny_onnx

    members = {"encoder.onnx": tiny_onnx(), **tiny_golden()}
    golden = Bundle.open(place.bundle).golden
    assert golden is not None
    members["golden/labels.npy"] = write_npy(1 - golden.labels)
    write_bundle(Path("other.fsseg"), tiny_manifest(), members)
    done = run("bundle", "verify", "other.fsseg")
    assert done.code == 1
    assert "FAILED  golden labels" in done.out
    done = run("bundle", "verify", "other.fsseg", "--json")
    assert (done.code, done.json["ok"]) == (1, False)


def test_bundle_verify_of_a_damaged_one(place: Place, run: Run) -> None:
    data = bytearray(place.bundle.read_bytes())
    data[200] ^= 4
    Path("damaged.fsseg").write_bytes(data)
    done = run("bundle", "verify", "damaged.fsseg")
    assert done.code == 2
    assert "damaged.fsseg" in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize("ways", [1, 2, 5, 12])
def test_the_drawn_picture(ways: int) -> None:
    image, masks = drawn_picture(320, 240, ways)
    assert image.shape == (240, 320, 3) and masks.shape == (ways, 240, 320)
    assert masks.any(axis=(1, 2)).all()
    assert masks.sum(axis=0).max() == 1, "discs do not overlap"
    again, _ = drawn_picture(320, 240, ways)
    assert np.array_equal(image, again)
