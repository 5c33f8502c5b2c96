"""Result files: resumed, whole or not at all, with the right caveat; what a model has seen."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from training.evaluation import provenance, results
from training.evaluation.fold import name_of_all
from training.evaluation.rows import SAME, mean_rows
from training.files import write_whole
from training.reporting.reading import read_sections

from . import results as written


def test_a_line_that_was_cut_off_is_measured_again(tmp_path: Path) -> None:
    asked = {"protocol": "panet-417"}
    partial = results.Partial(tmp_path / "out.json", asked)
    partial.add({"fold": 1, "rows": []})
    path = tmp_path / "out.json.part"
    path.write_text(path.read_text() + '{"fold": 2, "ro')
    again = results.Partial(tmp_path / "out.json", asked)
    assert set(again.folds) == {1}
    again.add({"fold": 2, "rows": []})
    assert set(results.Partial(tmp_path / "out.json", asked).folds) == {1, 2}


def test_a_part_without_a_fold_is_begun_anew(tmp_path: Path) -> None:
    """After a typing error, say; one with a fold that is done is never thrown away."""
    wrong, right = {"model": "tyop.fsseg"}, {"model": "typo.fsseg"}
    results.Partial(tmp_path / "out.json", wrong)
    results.Partial(tmp_path / "out.json", right).add({"fold": 0})
    lines = (tmp_path / "out.json.part").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [right, {"fold": 0}]
    with pytest.raises(ValueError, match=r"model was 'typo\.fsseg', now 'tyop\.fsseg'"):
        results.Partial(tmp_path / "out.json", wrong)


def test_the_mean_over_folds() -> None:
    """Folds count alike, however many pictures they have."""
    lists, rows = {}, []
    for fold, value, count in ((1, 40, 30), (2, 60, 5)):
        queries = [f"p{n // 2}" for n in range(2 * count)]
        classes = [fold] * len(queries)
        lists[f"f{fold}"] = {"run": [0, 1] * count, "query": queries, "class": classes}
        row = {
            **dict.fromkeys(SAME, 1),
            "fold": fold,
            "list": f"f{fold}",
            "miou": value,
            "fbiou": 70.0,
            "runs": [value - 1, value + 1],
            "intersection": [value] * len(queries),
            "union": [100] * len(queries),
        }
        rows.append(row)
    (mean,) = mean_rows(rows, lists, repeats=20)
    assert (mean["miou"], mean["folds"], mean["runs"]) == (50, [1, 2], [49, 51])
    assert mean["interval"] == pytest.approx([50, 50])
    assert mean_rows(rows[:1], lists) == []


def test_models_of_several_folds_have_one_name() -> None:
    parts = [{"fold": fold, "model": {"name": f"rn50-fold{fold}"}} for fold in (1, 2)]
    assert name_of_all(parts) == "rn50"
    assert name_of_all(parts[:1]) == "rn50-fold1"


def doubt(header: dict[str, Any], *asked: Any) -> provenance.Doubt | None:
    facts = {"trained": provenance.trained(header)}
    return provenance.unfit(facts, *(asked or ("voc2012", "pascal-5i", 2)))


def header(sets: list[str], **data: Any) -> dict[str, Any]:
    return {"settings": {"data": data}, "pictures": dict.fromkeys(sets, 9)}


def text_of(found: provenance.Doubt | None, refused: bool) -> str:
    assert found is not None
    assert found.refused is refused
    return found.text


FOLD = {"split": "pascal-5i", "fold": 2}


def test_a_model_must_not_have_seen_the_classes() -> None:
    assert doubt(header(["voc2012"], **FOLD)) is None
    assert doubt(header(["voc2012"], **FOLD, novel="drop")) is None
    other = doubt(header(["voc2012"], split="pascal-5i", fold=1))
    assert "fold 1 of pascal-5i" in text_of(other, refused=True)
    assert "without a fold" in text_of(doubt(header(["voc2012"])), refused=False)
    assert doubt({}) is None


@pytest.mark.parametrize("novel", ["background", "ignore"])
def test_a_model_must_not_have_seen_the_test_pictures(novel: str) -> None:
    """Those of split train, if pictures that show a novel class were kept."""
    kept = header(["voc2012"], **FOLD, novel=novel)
    assert "--pool val" in text_of(doubt(kept), refused=True)
    assert doubt(kept, "voc2012", "pascal-5i", 2, "val") is None
    elsewhere = doubt(header(["voc-own"], **FOLD, novel=novel))
    assert "whether some are of voc2012 is unknown" in text_of(elsewhere, refused=False)


def test_a_model_of_another_set_is_measured_with_a_note() -> None:
    """A fold of VOC says nothing of the classes of one's own set; COCO's two splits overlap."""
    own = ("parts", "all", 0)
    note = doubt(header(["voc2012"], split="pascal-5i", fold=0), *own)
    assert text_of(note, refused=False).startswith("the model was trained on voc2012; which")
    unnamed = doubt(header([], split="pascal-5i", fold=0), *own)
    assert "fold 0 of pascal-5i" in text_of(unnamed, refused=False)
    assert "unknown" in text_of(doubt(header(["coco"])), refused=False)
    mixed = header(["coco"], split="coco-20i-contiguous", fold=0)
    assert "interleaved" in text_of(doubt(mixed, "coco", "coco-20i-interleaved", 0), refused=True)
    named = text_of(doubt(mixed, "coco-part", "coco-20i-interleaved", 0), refused=True)
    assert "{fold} in the path" in named
    same = header(["parts"], split="pascal-5i", fold=0)
    assert "has seen classes" in text_of(doubt(same, *own), refused=True)


def test_the_caveat_says_which_part_of_a_set_it_is() -> None:
    assert "448 pixels" in results.caveat("voc2012", "pascal-5i", 3426)
    plain = results.caveat("voc2012", "pascal-5i", 2913)
    assert "448" not in plain
    assert plain.startswith("Not PASCAL-5i: 2,913 pictures, VOC 2012 without SBD.")
    assert "a part of VOC 2012 with SBD" in results.caveat("voc2012", "pascal-5i", 5000)
    assert "Not" not in results.caveat("voc2012", "pascal-5i", 12031)
    assert "Not COCO-20i: 900" in results.caveat("coco", "coco-20i-contiguous", 900)


def test_a_report_does_not_mix_pools(tmp_path: Path) -> None:
    files = []
    for pool in ("all", "val"):
        content = written.result("net", written.row(1, [(0, "p", 6, 30, 100)], 40.0))
        content["data"]["pool"] = pool
        files.append(written.write(tmp_path / f"{pool}.json", content))
    sections = read_sections(files)
    assert [s.title for s in sections] == ["voc2012, panet-417", "voc2012 val, panet-417"]


def test_writers_of_one_file_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, replace = tmp_path / "new" / "file", os.replace
    partial: list[Path] = []

    def meanwhile(source: Path, target: Path) -> None:
        partial.append(Path(source))
        if len(partial) == 1:  # another one writes the whole file just before this one is renamed
            write_whole(path, "second")
            assert path.read_text() == "second"
        replace(source, target)

    monkeypatch.setattr(os, "replace", meanwhile)
    write_whole(path, "first")
    assert path.read_text() == "first"
    assert len(set(partial)) == 2
    assert list(path.parent.iterdir()) == [path]
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode  # others may read it, too


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    write_whole(path, "old")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]
