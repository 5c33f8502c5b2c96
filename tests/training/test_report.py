"""Tables by hand-computed results; what is refused; and what is not yet run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.results import CAVEAT, result, row, write
from training import report
from training.reporting.reading import read_sections
from training.reporting.tables import against, by_class, by_fold, classes, marks, tables

ONE = [(0, "p", 6, 30, 60), (0, "q", 6, 10, 20), (0, "q", 7, 1, 4)]  # 50 and 25: 37.5
TWO = [(0, "r", 11, 3, 4)]  # 75


def many(right: list[int]) -> list[tuple[int, str, int, int, int]]:
    """An episode of 100 pixels in a picture of its own for each."""
    return [(0, f"p{n}", 6, value, 100) for n, value in enumerate(right)]


def only(files: list[str], expected: Path | None = None) -> Any:
    (section,) = read_sections(files, expected)
    return section


def test_a_table_of_methods_by_fold(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a.json", result("ours", row(1, ONE, 37.5, 0.4), row(2, TWO, 75.0))),
        write(tmp_path / "b.json", result("theirs", row(1, ONE, 37.5))),
    ]
    section = only(files)
    table = by_fold(section, section.settings()[0]).splitlines()
    assert table[0] == "| method | fold 1 | fold 2 | mean | FB-IoU |"
    cells = [cell.strip() for cell in table[2].split("|")[1:-1]]
    assert cells[:3] == ["ours", "37.5 ± 0.4 [32.5, 42.5]", "75.0 [70.0, 80.0]"]
    # one picture in fold 2; in fold 1 those drawn may be p alone (50), q alone (37.5) or both
    assert cells[3] == "56.2 [56.2, 62.5]"
    assert cells[4] == "66.2"
    assert table[3] == ("| theirs | 37.5 [32.5, 42.5] | not yet run | not yet run | not yet run |")


def test_parts_of_a_method_are_joined_and_seeds_kept_apart(tmp_path: Path) -> None:
    files = [
        write(tmp_path / f"{name}-{seed}.json", result(name, part, trained={"seed": seed}))
        for seed in (0, 1)
        for name, part in (("net-fold1", row(1, ONE, 37.5)), ("net-fold2", row(2, TWO, 75.0)))
    ]
    section = only(files)
    assert [method.name for method in section.methods] == ["net (seed 0)", "net (seed 1)"]
    assert all(len(method.rows) == 2 for method in section.methods)
    assert [method.name for method in only(files[:2]).methods] == ["net"]


def test_the_same_row_twice_is_refused_until_named(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{n}.json", result("net", row(1, ONE, 37.5))) for n in range(2)]
    with pytest.raises(ValueError, match=r"1\.json: has the same row as .*0\.json.*NAME="):
        read_sections(files)
    section = only([files[0], f"other={files[1]}"])
    assert [method.name for method in section.methods] == ["net", "other"]


def test_other_pictures_and_protocols_are_other_sections(tmp_path: Path) -> None:
    other = result("net", row(1, ONE, 37.5)) | {"protocol": "hsnet-400"}
    files = [write(tmp_path / "a.json", result("net", row(1, ONE, 37.5)))]
    files.append(write(tmp_path / "b.json", other))
    assert [s.protocol for s in read_sections(files)] == ["panet-417", "hsnet-400"]


def test_differences_are_paired(tmp_path: Path) -> None:
    """Each picture 10 points better is certain; 30 and 50 in turns against 40 is not."""
    files = [
        write(tmp_path / f"{name}.json", result(name, row(1, many(right), 0.0)))
        for name, right in (
            ("raw", [40] * 20),
            ("better", [50] * 20),
            ("unsure", [30, 50] * 10),
        )
    ]
    section = only(files)
    table = against(section, section.settings()[0], section.method("raw"))
    assert table is not None
    lines = table.splitlines()
    assert lines[0] == "| less raw | fold 1 |"
    assert lines[2] == "| better | +10.0 [+10.0, +10.0] |"
    assert lines[3].startswith("| unsure | +0.0 [-") and lines[3].endswith("], not resolved |")
    assert len(lines) == 4


def test_other_episodes_are_not_compared(tmp_path: Path) -> None:
    other = [(0, "elsewhere", *entry[2:]) for entry in many([50] * 3)]
    files = [
        write(tmp_path / "raw.json", result("raw", row(1, many([40] * 3), 40.0))),
        write(tmp_path / "net.json", result("net", row(1, other, 50.0))),
    ]
    section = only(files)
    with pytest.raises(ValueError, match=r"net\.json and .*raw\.json: .*same episodes"):
        against(section, section.settings()[0], section.method("raw"))
    assert report.main([*files, "--baseline", "raw"]) == 2


def test_annotations_are_compared_within_a_method(tmp_path: Path) -> None:
    dense, box = (row(1, many([n] * 9), 0.0) for n in (50, 45))
    box["annotation"] = "box-component"
    section = only([write(tmp_path / "a.json", result("net", dense, box))])
    table = marks(section)
    assert table is not None
    assert table.splitlines()[2:] == [
        "| net, box-component | 1-way 1-shot, 417x417 | 1 | -5.0 [-5.0, -5.0] |"
    ]


def test_classes_stand_beside_each_other(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a.json", result("a", row(1, ONE[1:], 0.0), row(2, TWO, 75.0))),
        write(tmp_path / "b.json", result("b", row(1, ONE[1:], 0.0))),
    ]
    section = only(files)
    assert by_class(section, section.settings()[0]).splitlines()[2:] == [
        "| bus | 1 | 50.0 | 50.0 |",
        "| car | 1 | 25.0 | 25.0 |",
        "| table | 2 | 75.0 | not yet run |",
    ]
    assert CAVEAT in next(classes(section))


def test_names_of_a_file_are_rows_not_yet_run(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("# planned\nnet\nlater\n\n")
    files = [write(tmp_path / "a.json", result("net", row(1, ONE, 37.5)))]
    section = only(files, tmp_path / "names.txt")
    table = by_fold(section, section.settings()[0])
    assert table.splitlines()[2:] == [
        "| net | 37.5 [32.5, 42.5] | 47.5 |",
        "| later | not yet run | not yet run |",
    ]
    with pytest.raises(FileNotFoundError, match="names"):
        read_sections(files, tmp_path / "none.txt")


def test_a_sweep_says_which_folds_are_planned(tmp_path: Path) -> None:
    configs = Path(report.__file__).parent / "configs"
    sweep = (
        f'[[runs]]\nname = "net"\nmethod = "panet"\n'
        f'settings = "{configs / "panet-resnet50-voc.toml"}"\n'
        'vary = { "trainer.seed" = [0, 1], "data.fold" = [1, 3] }\n'
    )
    (tmp_path / "sweep.toml").write_text(sweep)
    files = [write(tmp_path / "a.json", result("net-seed0-fold1", row(1, ONE, 37.5)))]
    section = only(files, tmp_path / "sweep.toml")
    table = by_fold(section, section.settings()[0]).splitlines()
    assert table[0] == "| method | fold 1 | fold 3 | mean | FB-IoU |"
    assert table[2].startswith("| net-seed0 | 37.5 [32.5, 42.5] | not yet run | not yet run |")
    assert table[3].startswith("| net-seed1 | not yet run | not yet run |")


def broken(key: str, *place: Any) -> dict[str, Any]:
    """A result without ``key`` at ``place``."""
    content = result("net", row(1, ONE, 37.5))
    inner: Any = content
    for step in place:
        inner = inner[step]
    del inner[key]
    return content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "TypeError"),
        ({"iteration": 200, "loss": 0.6}, "rows"),
        (broken("models"), "'models' is missing"),
        (broken("caveat", "data"), "data has no 'caveat'"),
        (broken("miou", "rows", 0), "row 0 has no 'miou'"),
        (broken("shots", "rows", 0), "row 0 has no 'shots'"),
        (broken("fold1-1way-1shot", "lists"), "list 'fold1-1way-1shot', which is missing"),
        (broken("query", "lists", "fold1-1way-1shot"), "one figure for each entry"),
        (result("net"), "no rows"),
        (result("net", row(1, ONE, 37.5, union=[1, 2])), "one figure for each entry"),
        (result("net", row(1, ONE, 37.5, miou="x")), "row 0 has no 'miou', or one of another kind"),
    ],
)
def test_foreign_files_are_refused_by_name(tmp_path: Path, content: Any, words: str) -> None:
    file = write(tmp_path / "foreign.json", content)
    with pytest.raises(ValueError, match=r"foreign\.json: expected a result") as raised:
        read_sections([file])
    assert words in str(raised.value)


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write(tmp_path / "good.json", result("net", row(1, ONE, 37.5)))
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "log.jsonl").write_text('{"loss": 1}\n')
    (tmp_path / "cut.json").write_text(json.dumps(result("net", row(1, ONE, 37.5)))[:200])
    for arguments, words in (
        ([str(tmp_path / "cut.json")], "cut.json: expected a result"),
        ([str(tmp_path / "none.json")], "none.json: expected a result"),
        ([good, "--baseline", "raw"], "--baseline: expected one of 'net', got 'raw'"),
        (["--curves", str(tmp_path), "--out", str(tmp_path)], "with log.jsonl, got none"),
        (["--curves", str(tmp_path / "no"), "--out", str(tmp_path)], "no: expected the folder"),
        (["--curves", str(tmp_path / "r"), "--out", str(tmp_path)], "log.jsonl: expected the log"),
    ):
        assert report.main(arguments) == 2
        assert words in capsys.readouterr().err
    for arguments in ([], [good, "--page", "x.png"], [good, "--curves", "x"]):
        with pytest.raises(SystemExit):
            report.main(arguments)


def test_the_caveat_is_always_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "a.json", result("net", row(1, ONE, 37.5)))
    assert report.main([file]) == 0
    printed = capsys.readouterr().out
    assert printed.rstrip().endswith(CAVEAT)
    assert "- fold 0: has too few pictures." in printed
    assert CAVEAT in next(tables(only([file]), None))
