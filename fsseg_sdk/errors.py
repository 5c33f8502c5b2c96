"""The errors of fsseg_sdk: each names the argument, what was expected, what came, the remedy."""

from __future__ import annotations

__all__ = [
    "BackendError",
    "BundleError",
    "DeviceMemoryError",
    "FssegError",
    "InputError",
    "KernelError",
    "TaskError",
]


class FssegError(Exception):
    """Base of every error that fsseg_sdk raises on purpose.

    argument: what was wrong, in the caller's words ("query", "class 'bolt', shot 2, mask").
    expected, got: two noun phrases; remedy: one sentence that says what to do about it.

    The message reads ``{argument}: expected {expected}, got {got}. {remedy}``. Errors can be
    pickled, so that they cross process borders (multiprocessing) with their attributes.
    """

    def __init__(self, argument: str, *, expected: str, got: str, remedy: str) -> None:
        super().__init__(f"{argument}: expected {expected}, got {got}. {remedy}")
        self.argument = argument
        self.expected = expected
        self.got = got
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.argument, self.expected, self.got, self.remedy))


class InputError(FssegError, ValueError):
    """An image, mask, box, scribble, array or setting that a call cannot work with."""


class BundleError(FssegError):
    """A bundle (.fsseg) that is damaged, incomplete or not understood."""


class TaskError(FssegError):
    """A task file that is damaged, or that was made with another encoder or method."""


class BackendError(FssegError):
    """A backend or device that is missing, unknown, or cannot do what was asked."""


class KernelError(FssegError):
    """The compiled kernels are missing or broken on this machine."""


class DeviceMemoryError(KernelError, MemoryError):
    """A GPU has too little memory left for a call. Nothing is broken: the next call works."""


def _rebuild(
    kind: type[FssegError], argument: str, expected: str, got: str, remedy: str
) -> FssegError:
    return kind(argument, expected=expected, got=got, remedy=remedy)
