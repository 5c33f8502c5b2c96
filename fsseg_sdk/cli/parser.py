"""The arguments of every command. Imports nothing that takes time: ``fsseg --help`` is instant."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from .. import __version__
from .engine_parser import add_engine
from .values import positive, setting, size, tile

__all__ = ["build_parser"]

_EPILOG = """exit codes:
  0  done
  1  done, but not for everything: some pictures failed, or a check said no
  2  a wrong call or input; one message on stderr says what to do
  130  interrupted; what was finished is kept"""

_PREPARE = """Encode labelled pictures once and keep what the method needs in a task file.
Classes get their labels in the order in which they first appear.

  fsseg prepare --class bolt a.jpg a_mask.png b.jpg b_mask.png \\
                --box nut c.jpg 10,20,90,80 --scribble nut d.jpg "12,30 40,50" --out parts.task"""

_SEGMENT = """Find the classes in pictures. For each query, --out gets NAME_mask.png (labels 0..N),
NAME_overlay.jpg and NAME.json; report.json says how all went. A picture that cannot be read is
reported, the others go on, and the exit code is 1.

  fsseg segment --task parts.task photos/ --out found
  fsseg segment --support a.jpg --mask a_mask.png 'photos/*.jpg' --out found
  fsseg segment --class bolt a.jpg a_mask.png --class nut b.jpg b_mask.png photos/ --out found"""

_VIDEO = """Find the classes in a video file, a camera (0, /dev/video0, rtsp://...) or a folder of
frames. Of a file every frame is segmented; of a camera always the newest. Ctrl-C ends the output
cleanly. With --json, one line per frame and a last one with the summary."""

_BENCHMARK = """Measure a bundle on this machine: a drawn picture is segmented again and again.
Latency percentiles and FPS, in all and by stage."""


_VERIFY = """Recompute the hashes, and what the bundle answers for its golden image on this machine.
The exit code is 1 if it computes something else here, 2 if the file is damaged."""

_BOX = "LEFT,TOP,RIGHT,BOTTOM"
_STROKES_HELP = '"x,y x,y ..."; several strokes with ";", and "not x,y ..." for what it is not'

_ENGINE = "TensorRT engines: native code that is built for this GPU and kept for the next time."

_DOCTOR = """What this build and machine can do. Each backend is tried, and the default bundle
segments a drawn picture. The exit code is 1 if that does not work."""


class _InOrder(argparse.Action):
    """Collects (option, values) of several options in one list, in the order of the command."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        given = [values] if isinstance(values, str) else list(values or ())
        so_far = getattr(namespace, self.dest) or []
        option = self.option_strings[-1].lstrip("-")
        setattr(namespace, self.dest, [*so_far, (option, given)])


def build_parser() -> argparse.ArgumentParser:
    """The parser. Parsed arguments carry `module`, the module of this package with `run`."""
    parser = argparse.ArgumentParser(
        prog="fsseg",
        description="Few-shot segmentation: show one example, find it in other pictures.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fsseg_sdk {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_prepare(_command(commands, "prepare", "encode labelled pictures into a task", _PREPARE))
    _add_segment(_command(commands, "segment", "find the classes in pictures", _SEGMENT))
    _add_video(_command(commands, "video", "find the classes in a video or camera", _VIDEO))
    _add_benchmark(_command(commands, "benchmark", "measure latency and FPS here", _BENCHMARK))
    _add_bundle(_command(commands, "bundle", "look into a bundle, or verify it", "Bundle files."))
    _add_task(_command(commands, "task", "look into a task file", "Task files."))
    add_engine(_command(commands, "engine", "TensorRT engines of this machine", _ENGINE), _command)
    _add_json(_command(commands, "doctor", "what this build and machine can do", _DOCTOR))
    return parser


def _command(commands: Any, name: str, summary: str, description: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(module=name)
    return parser


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    shots = parser.add_argument_group("labelled pictures, mixed and repeated as you like")
    shots.add_argument(
        "--class",
        action=_InOrder,
        dest="shots",
        nargs="+",
        metavar=("NAME", "IMAGE MASK"),
        help="objects by their masks",
    )
    for option, last, text in (
        ("box", _BOX, "an object by a box in pixels, right and bottom exclusive"),
        ("scribble", "STROKES", _STROKES_HELP),
    ):
        metavar = ("NAME", "IMAGE", last)
        shots.add_argument(
            f"--{option}", action=_InOrder, dest="shots", nargs=3, metavar=metavar, help=text
        )
    _add_auxiliary(shots)
    parser.add_argument("--out", required=True, metavar="T.task", help="the task file to write")
    parser.add_argument(
        "--kept", metavar="FILE.jpg", help="draw what was kept of the auxiliary pictures"
    )
    _add_runtime(parser)
    _add_json(parser)


def _add_auxiliary(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--auxiliary",
        metavar="DIR",
        help="pictures that show the class and are not labelled; of several classes, a folder each",
    )


def _add_segment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("queries", nargs="+", metavar="QUERY", help="a file, a folder or a glob")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder for the results")
    parser.add_argument("--recursive", action="store_true", help="folders with their subfolders")
    parser.add_argument("--no-overlay", action="store_true", help="write masks and JSON alone")
    shots = parser.add_argument_group("what to find: a task, or labelled pictures")
    shots.add_argument("--task", metavar="T.task", help="made by fsseg prepare")
    shots.add_argument(
        "--class",
        action=_InOrder,
        dest="shots",
        nargs=3,
        metavar=("NAME", "IMAGE", "MASK"),
        help="a labelled picture; repeat it for more pictures and more classes",
    )
    shots.add_argument(
        "--support",
        action=_InOrder,
        dest="shots",
        metavar="IMAGE",
        help="a labelled picture of one class; --mask, --box or --scribble follows",
    )
    for option, metavar in (("mask", "MASK"), ("box", _BOX), ("scribble", "STROKES")):
        shots.add_argument(f"--{option}", action=_InOrder, dest="shots", metavar=metavar)
    shots.add_argument("--name", default="object", help="the class of --support (default: object)")
    _add_auxiliary(shots)
    _add_tile(parser)
    _add_runtime(parser)
    _add_json(parser)


def _add_video(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="FILE|CAMERA|DIR")
    parser.add_argument("--task", required=True, metavar="T.task", help="made by fsseg prepare")
    parser.add_argument("--out", metavar="FILE.mp4|DIR", help="a video, or a folder of frames")
    parser.add_argument("--masks", action="store_true", help="write masks instead of overlays")
    parser.add_argument("--frames", type=positive, metavar="N", help="stop after N frames")
    _add_tile(parser)
    _add_runtime(parser)
    _add_json(parser)


def _add_benchmark(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=size, default=(1920, 1080), metavar="WIDTHxHEIGHT")
    parser.add_argument("--repeat", type=positive, default=30, metavar="N", help="timed runs")
    parser.add_argument("--warm-up", type=positive, default=3, metavar="N", help="runs before")
    parser.add_argument("--ways", type=positive, default=1, metavar="N", help="classes")
    parser.add_argument("--out", metavar="FILE.json", help="write the figures there, too")
    _add_tile(parser)
    _add_runtime(parser)
    _add_json(parser)


def _add_bundle(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    info = _command(actions, "info", "what it holds", "What a bundle says about itself.")
    verify = _command(actions, "verify", "recompute hashes and golden vectors", _VERIFY)
    for action, name in ((info, "info"), (verify, "verify")):
        action.set_defaults(module="bundle", action=name)
        action.add_argument("path", metavar="PATH", help='a bundle file, or "default"')
        _add_json(action)
    _add_backend(verify)


def _add_task(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    info = _command(actions, "info", "what it holds", "What a task file says about itself.")
    info.set_defaults(module="task", action="info")
    info.add_argument("path", metavar="PATH")
    _add_json(info)


def _add_runtime(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it runs")
    group.add_argument("--bundle", default="default", metavar="PATH", help='default: "default"')
    group.add_argument("--method", metavar="NAME", help="default: the bundle's own")
    group.add_argument(
        "--setting",
        action="append",
        default=[],
        type=setting,
        metavar="NAME=VALUE",
        help="of the method, such as hidden=64 or panet.scale=10; may be repeated",
    )
    _add_backend(group)


def _add_backend(group: argparse._ActionsContainer) -> None:
    group.add_argument("--backend", default="auto", metavar="NAME", help="default: auto")
    group.add_argument("--device", default="auto", metavar="NAME", help="default: auto")
    group.add_argument("--precision", default="auto", metavar="NAME", help="default: auto")
    group.add_argument(
        "--threads", type=positive, metavar="N", help="default: FSSEG_NUM_THREADS or all cores"
    )


def _add_tile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tile",
        type=tile,
        metavar="auto|native|N",
        help="cut large pictures into windows of N pixels; native: of the encoder's input size",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
