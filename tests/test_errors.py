"""Errors say the four things they promise, and survive a copy and a trip to another process."""

from __future__ import annotations

import copy
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

import fsseg_sdk
from fsseg_sdk import errors

KINDS = [getattr(errors, name) for name in errors.__all__]


def _raise_it(kind: type[errors.FssegError]) -> None:
    raise kind("query", expected="a picture", got="text", remedy="Pass a picture.")


@pytest.mark.parametrize("kind", KINDS)
def test_message_and_attributes(kind: type[errors.FssegError]) -> None:
    with pytest.raises(kind) as caught:
        _raise_it(kind)
    error = caught.value
    assert isinstance(error, errors.FssegError)
    assert str(error) == "query: expected a picture, got text. Pass a picture."
    assert (error.argument, error.expected, error.got, error.remedy) == (
        "query",
        "a picture",
        "text",
        "Pass a picture.",
    )


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_equal(kind: type[errors.FssegError]) -> None:
    error = kind("a", expected="b", got="c", remedy="d.")
    other = copy.copy(error)  # by the protocol that pickle uses
    assert type(other) is kind
    assert str(other) == str(error)
    assert vars(other) == vars(error)


def test_input_error_is_a_value_error() -> None:
    assert issubclass(errors.InputError, ValueError)
    assert {kind for kind in KINDS if issubclass(kind, ValueError)} == {errors.InputError}


def test_errors_cross_a_process_border() -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        error = pool.submit(_raise_it, errors.BundleError).exception(timeout=60)
    assert isinstance(error, errors.BundleError)
    assert error.remedy == "Pass a picture."


def test_all_errors_are_exported() -> None:
    assert set(errors.__all__) <= set(fsseg_sdk.__all__)
