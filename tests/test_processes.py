"""Other processes: forked, spawned, fresh."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests import tiny
from tests.data import REPOSITORY

_FORKED = """
    import multiprocessing, sys, time
    from pathlib import Path
    from tests import tiny
    from fsseg_sdk import BackendError, Segmenter

    image, mask = tiny.tiny_scene()

    def work(seg, path):
        if seg is not None:
            try:
                seg.segment(image, mask, image)
            except BackendError as error:
                assert "fork" in str(error), error
            else:
                sys.exit("a graph from before the fork was used")
        again = Segmenter.load(path).segment(image, mask, image)
        assert (again.mask == mask).mean() > 0.9

    if __name__ == "__main__":
        path, kind = Path(sys.argv[1]), sys.argv[2]
        seg = Segmenter.load(path)
        seg.segment(image, mask, image)
        context = multiprocessing.get_context(kind)
        worker = context.Process(target=work, args=(seg if kind == "fork" else None, path))
        begin = time.monotonic()
        worker.start()
        worker.join(20)
        print(worker.exitcode, time.monotonic() - begin)
        sys.exit(0 if worker.exitcode == 0 else 1)
"""


@pytest.mark.parametrize("kind", ["fork", "spawn"])
def test_processes(kind: str, tmp_path: Path) -> None:
    """A graph from before a fork is refused in the child, which can load its own; spawn works."""
    path = tiny.tiny_bundle(tmp_path / "tiny.fsseg")
    script = tmp_path / "forked.py"
    script.write_text(textwrap.dedent(_FORKED))
    done = subprocess.run(
        [sys.executable, str(script), str(path), kind],
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert float(done.stdout.split()[1]) < 10


def test_a_fresh_process_gives_the_same_bits(tmp_path: Path) -> None:
    path = tiny.tiny_bundle(tmp_path / "tiny.fsseg")
    code = """
        import hashlib, sys
        from fsseg_sdk import Segmenter
        from tests import tiny
        image, mask = tiny.tiny_scene()
        seg = Segmenter.load(sys.argv[1], threads=int(sys.argv[2]))
        results = [seg.segment(image, mask, image) for _ in range(20)]
        both = [r.logits.tobytes() + r.labels.tobytes() for r in results]
        print({hashlib.sha256(each).hexdigest() for each in both})
    """
    answers = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(path), threads],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for threads in ("1", "1", "3")
    }
    assert len(answers) == 1
    assert answers.pop().count("'") == 2
