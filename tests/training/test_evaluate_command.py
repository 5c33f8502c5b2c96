"""`python -m training.evaluate`: what it writes, resumes, refuses and leaves out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from training import evaluate as command
from training.checkpoint import save_checkpoint
from training.datasets import Dataset
from training.evaluation import fold as folds
from training.evaluation import results

from .squares import draw_parts, draw_voc


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_parts(tmp_path_factory.mktemp("squares") / "parts")


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_voc(tmp_path_factory.mktemp("squares") / "voc-like", 16)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.fsseg")


def arguments(data: Dataset, folder: Path, *more: str) -> list[str]:
    path = str(data.samples[0].image.parents[1])
    lists = ["--lists", str(folder / "lists"), "--json", str(folder / "out.json")]
    return ["--data", path, "--folds", "0", "--runs", "2", "--episodes", "6", *lists, *more]


def test_the_command_writes_what_it_prints(
    parts: Dataset, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--shots", "1,2,15", "--ways", "1,2", "--annotation", "dense,scribble"]
    assert command.main([str(bundle), *arguments(parts, tmp_path, *options)]) == 0
    printed = capsys.readouterr().out
    result = results.read_result(tmp_path / "out.json")
    assert not (tmp_path / "out.json.part").exists()
    assert result["model"]["name"] == "tiny"
    assert len(result["model"]["digest"]) == 64
    settings = {(r["shots"], r["ways"], r["annotation"]) for r in result["rows"]}
    assert settings == {(k, n, a) for k in (1, 2) for n in (1, 2) for a in ("dense", "scribble")}
    assert any("15-shot" in note for note in result["notes"])
    assert "15-shot" in printed
    for row in result["rows"]:
        entries = result["lists"][row["list"]]
        assert row["episodes"] == 12
        assert len(row["runs"]) == 2
        assert len(entries["run"]) == len(row["union"]) == 12 * row["ways"]
        assert row["miou"] == pytest.approx(np.mean(row["runs"]))
        assert row["interval"][0] <= row["miou"] <= row["interval"][1]
        assert set(row["per_class"]) <= set(parts.class_names)
        assert f"{row['miou']:.1f}" in printed
    rules = {r["false_positives"] for r in result["rows"] if r["ways"] == 2}
    assert rules == {"all", "present"}
    assert {r["false_positives"] for r in result["rows"] if r["ways"] == 1} == {"all"}
    assert result["data"]["caveat"] in " ".join(printed.split())
    assert "compare these figures with each other" in printed.replace("\n", " ")


def test_an_interrupted_evaluation_goes_on(
    voc: Dataset,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is done is not done again, and the result is that of an unbroken run."""
    own = tmp_path / "own.fsseg"
    own.write_bytes(bundle.read_bytes())
    asked = [str(own), *arguments(voc, tmp_path, "--shots", "1", "--folds", "0,1", "--fewest", "2")]
    assert command.main(asked) == 0
    whole = json.loads((tmp_path / "out.json").read_text())
    (tmp_path / "out.json").unlink()
    measure, measured = folds.measure, list[int]()

    def interrupted(*given: Any) -> Any:
        measured.append(given[1].fold.number)
        if measured == [0, 1]:
            raise KeyboardInterrupt
        return measure(*given)

    monkeypatch.setattr(folds, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command.main(asked)
    part = tmp_path / "out.json.part"
    assert len(part.read_text().splitlines()) == 2
    for more, name in (
        (["--runs", "1"], "runs was 2, now 1"),
        (["--cache-gb", "0"], "cache was True, now False"),
        (["--lists", str(tmp_path / "others")], "lists was "),
        (["--pool", "val"], "pool was 'all', now 'val'"),
    ):
        assert command.main([*asked, *more]) == 2
        assert f"another evaluation: {name}" in capsys.readouterr().err
    own.write_bytes(tiny.tiny_bundle(tmp_path / "new.fsseg", settings={"scale": 9.0}).read_bytes())
    assert command.main(asked) == 2
    assert "fold 0 was measured with another model" in capsys.readouterr().err
    own.write_bytes(bundle.read_bytes())
    assert command.main(asked) == 0
    assert measured == [0, 1, 1]
    assert "fold 0: done before" in capsys.readouterr().out
    again = json.loads((tmp_path / "out.json").read_text())
    for each in (again, whole):
        del each["seconds"], each["machine"]
        for row in each["rows"]:
            del row["ms_per_query"]
    assert again == whole
    assert not part.exists()


def checkpoint(folder: Path, **data: Any) -> Path:
    from training.encoders import build_encoder

    tensors = build_encoder("mobilenet_v2").state_dict()
    header = {
        "encoder": {"name": "mobilenet_v2", "settings": {}},
        "method": {"name": "panet", "settings": {"scale": 20.0}},
        "settings": {"data": data, "trainer": {"seed": 3}},
        "pictures": {"voc-like": 8},
    }
    path = folder / "checkpoint.safetensors"
    save_checkpoint(path, {f"encoder.{k}": t for k, t in tensors.items()}, header)
    return path


FEW = ["--shots", "1", "--runs", "1", "--episodes", "1", "--fewest", "2"]


def test_a_checkpoint_of_another_fold_is_refused(
    voc: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And one that says nothing of folds is evaluated, at the protocol's size."""
    path = checkpoint(tmp_path / "run", split="pascal-5i", fold=1)
    asked = arguments(voc, tmp_path, *FEW)
    assert command.main(["--torch", str(path), *asked]) == 2
    assert "fold 1 of pascal-5i" in capsys.readouterr().err
    checkpoint(tmp_path / "run0", split=None, fold=None)
    named = ["--torch", str(tmp_path / "run{fold}" / "checkpoint.safetensors"), "--bfloat16"]
    assert command.main([*named, *asked]) == 0
    result = results.read_result(tmp_path / "out.json")
    model = result["model"]
    assert (model["name"], model["precision"], model["trained"]["seed"]) == ("run0", "bf16", 3)
    assert model["input"].startswith("417 x 417")
    assert any("without a fold" in note for note in result["notes"])


def test_a_bundle_in_another_precision(voc: Dataset, tmp_path: Path) -> None:
    from tests.test_bundle_files import FULL, U8, several

    path = several(tmp_path / "t.fsseg", FULL, U8)
    asked = arguments(voc, tmp_path, *FEW, "--backend", "onnxruntime", "--precision", "int8")
    assert command.main([str(path), *asked]) == 0
    found = results.read_result(tmp_path / "out.json")["model"]
    assert (found["backend"], found["precision"]) == ("onnxruntime", "int8")


@pytest.mark.parametrize("kind", ["bundle", "torch"])
def test_another_method_with_other_settings(
    voc: Dataset, bundle: Path, tmp_path: Path, kind: str
) -> None:
    """The runtime's own, on the features of the bundle or of torch."""
    model = [str(bundle)]
    if kind == "torch":
        model = ["--torch", str(checkpoint(tmp_path / "run", split=None, fold=None))]
    changed = ["--setting", "iterations=2", "--setting", "panet.background_parts=2"]
    asked = arguments(voc, tmp_path, *FEW, *changed)
    assert command.main([*model, "--method", "srofb", *asked]) == 0
    found = results.read_result(tmp_path / "out.json")["model"]
    assert (found["method"], found["settings"]["iterations"]) == ("srofb", 2)
    assert found["settings"]["panet"]["background_parts"] == 2
    assert found["settings"]["hidden"] == 300
    assert "presence" not in found["settings"]["panet"]


def test_a_method_that_wants_one_size_of_input(
    voc: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint(tmp_path / "run", split=None, fold=None)
    asked = arguments(voc, tmp_path, *FEW, "--protocol", "mlc-native")
    assert command.main(["--torch", str(path), "--method", "srofb", *asked]) == 2
    assert "inputs of one size" in capsys.readouterr().err
    asked = arguments(voc, tmp_path, *FEW)
    assert command.main(["--torch", str(path), "--method", "srofbb", *asked]) == 2
    assert "srofb-fast" in capsys.readouterr().err


def test_pictures_that_were_trained_on_are_not_tested(
    voc: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint(tmp_path / "run", split="pascal-5i", fold=0, novel="background")
    asked = ["--torch", str(path), *arguments(voc, tmp_path, *FEW)]
    assert command.main(asked) == 2
    assert "Measure with --pool val" in capsys.readouterr().err
    assert command.main([*asked, "--pool", "val"]) == 2
    assert "pool: expected 'val', got 'all'" in capsys.readouterr().err
    lists = str(tmp_path / "val")
    assert command.main([*asked, "--pool", "val", "--lists", lists, "--episodes", "30"]) == 0
    result = results.read_result(tmp_path / "out.json")
    assert result["data"]["pool"] == "val"
    trained = {s.image.stem for s in voc.samples if s.split == "train"}
    assert not trained & set(result["lists"]["fold0-1way-1shot"]["query"])


@pytest.mark.parametrize(
    "wrong",
    [
        ["a.fsseg", "--torch", "b"],
        [],
        ["--raw", "resnet50"],
        ["a.fsseg", "--bfloat16"],
        ["--torch", "a", "--precision", "bf16"],
        ["a.fsseg", "--annotation", "dots"],
        ["a.fsseg", "--shots", "few"],
        ["a.fsseg", "--shots", "5-1"],
        ["a.fsseg", "--folds", "3-1"],
        ["a.fsseg", "--shots", "20"],
        ["a.fsseg", "--shots", "0"],
        ["a.fsseg", "--ways", "6"],
        ["a.fsseg", "--episodes", "0"],
        ["a.fsseg", "--fewest", "0"],
        ["a.fsseg", "--json", "."],
    ],
)
def test_options_that_make_no_sense(wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        command.main([*wrong, "--data", "nowhere"])


def test_missing_things_are_named(
    parts: Dataset, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the command goes well once it is corrected."""
    assert command.main(["default", "--data", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
    assert command.main(["no-such-bundle", *arguments(parts, tmp_path, "--shots", "1")]) == 2
    assert "no-such-bundle" in capsys.readouterr().err
    assert command.main([str(bundle), *arguments(parts, tmp_path, "--shots", "1")]) == 0


def test_all_folds_are_looked_at_first(
    parts: Dataset, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(bundle), *arguments(parts, tmp_path, "--folds", "0-3")]) == 2
    assert "Add --folds 0" in capsys.readouterr().err
    assert not (tmp_path / "lists").exists()


def test_a_result_that_cannot_be_written_is_said(
    parts: Dataset,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(path: Path, result: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results, "write_result", full)
    asked = [str(bundle), *arguments(parts, tmp_path, "--shots", "1")]
    assert command.main(asked) == 2
    assert "No space left" in capsys.readouterr().err
    monkeypatch.undo()
    assert command.main(asked) == 0
    assert "fold 0: done before" in capsys.readouterr().out


def test_episodes_of_broken_pictures_are_left_out_on_request(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = draw_parts(tmp_path / "parts")
    data.samples[0].image.write_bytes(b"no picture")
    Image.fromarray(np.zeros_like(data.samples[1].read_labels())).save(data.samples[1].mask)
    asked = [str(bundle), *arguments(data, tmp_path, "--shots", "1", "--episodes", "40")]
    assert command.main(asked) == 2
    assert "00.png: cannot be read" in capsys.readouterr().err
    assert command.main([*asked, "--skip-broken"]) == 0
    result = results.read_result(tmp_path / "out.json")
    (note,) = [n for n in result["notes"] if "are left out" in n]
    for row in result["rows"]:
        entries = result["lists"][row["list"]]
        assert row["episodes"] == len(row["union"]) == len(entries["query"]) < 80
        assert f"{80 - row['episodes']} of 80 episodes are left out" in note
        assert "00" not in entries["query"]
        assert len(row["runs"]) == 2
    assert "00.png" in note
    assert "01.png: expected class" in note
    for sample in data.samples:
        sample.image.write_bytes(b"no picture")
    assert command.main([*asked, "--skip-broken"]) == 2
    assert "every episode of a run" in capsys.readouterr().err
