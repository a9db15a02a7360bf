"""Answers whether transformers loads what a merge will write. Imports transformers, and so runs where that is cheap."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from modelmerger import Problem

from modelmerger_plugins.loading_check.causes import Causes
from modelmerger_plugins.loading_check.loading import Loading, build, match

UNKNOWABLE = (ImportError, OSError, MemoryError, RuntimeError)
"""What building a model raises for reasons that need not lie in its config: a package or a file is not here."""


def answer(asked: Mapping[str, Any]) -> list[Problem]:
    """The problems with loading the output. asked: as `check_output` has it.

    Raises whatever transformers raises where that says nothing about the output.
    """
    name, config = asked["architecture"], asked["config"]
    with _quiet():
        try:
            model = build(name, config)
        except UNKNOWABLE:
            raise
        except Exception as error:
            what = f"transformers cannot make a {name} of the merged config.json: {type(error).__name__}: "
            return [Problem(f"{what}{' '.join(str(error).split())}", asked["place"])]
        found = match(model, _shapes(asked["tensors"]))
        if found.fits:
            return []
        same = (asked["donor_architecture"], asked["donor_config"]) == (name, config)
        donor = _of_donor(asked, model if same else None)
    causes = Causes(architecture=name, place=asked["place"], donor=asked["donor"], of_donor=donor)
    return list(causes.problems(found))


def _of_donor(asked: Mapping[str, Any], model: Any) -> Loading | None:
    """How the donor's own tensors would be loaded; None where that cannot be known."""
    try:
        made = model if model is not None else build(asked["donor_architecture"], asked["donor_config"])
        return match(made, _shapes(asked["donor_tensors"]))
    except Exception:  # the donor's config is none of a class of transformers, and the merged one may yet be
        return None


def _shapes(lists: Mapping[str, list[int]]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in lists.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing is said about a model that is only built to be looked at."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
