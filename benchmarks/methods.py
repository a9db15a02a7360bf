"""The strategies that full models are merged by: the same numbers as modelmerger and as mergekit are told them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

INTERPOLATION_FACTOR = 0.4
SCALING_FACTOR = 0.7
DENSITY = 0.2
"""Of ties, as in the paper."""


@dataclass(frozen=True)
class Method:
    """One strategy."""

    ours: Mapping[str, Any] = field(default_factory=dict)
    """The options of modelmerger."""
    theirs: Mapping[str, Any] = field(default_factory=dict)
    """The parameters of mergekit."""
    base: bool = False
    """Whether it needs a base model."""
    weighted: bool = True
    """Whether models have weights."""
    mergekit: str = ""
    """What mergekit calls it, where that is another name."""
    models: int | None = None
    """How many models it is measured with; None for as many as the command line says."""
    field: bool = False
    """Whether it is measured in one shape alone: mergekit takes minutes, or many GB, where models are large."""


def _of_field(ours: Mapping[str, Any], theirs: Mapping[str, Any], base: bool = True, weighted: bool = True) -> Method:
    return Method(ours, theirs, base, weighted, models=3, field=True)


METHODS = {
    "weighted": Method({"normalize_weights": True}, {"normalize": True}, mergekit="linear"),
    "task_arithmetic": Method(
        {"scaling_factor": SCALING_FACTOR}, {"normalize": False, "lambda": SCALING_FACTOR}, base=True
    ),
    "slerp": Method(
        {"interpolation_factor": INTERPOLATION_FACTOR, "normalize_before_slerp": False},
        {"t": INTERPOLATION_FACTOR},
        weighted=False,
        models=2,
    ),
    "ties": _of_field(
        {"density": DENSITY, "normalize_weights": True, "scaling_factor": 1.0},
        {"density": DENSITY, "normalize": True, "lambda": 1.0},
    ),
    "dare_ties": _of_field(
        {"density": 0.5, "normalize_weights": False, "rescale": "l1", "scaling_factor": 1.0},
        {"density": 0.5, "normalize": False, "rescale": True, "lambda": 1.0},
    ),
    "della": _of_field(
        {"density": 0.7, "epsilon": 0.07, "normalize_weights": True, "rescale": "l1", "scaling_factor": 1.0},
        {"density": 0.7, "epsilon": 0.07, "normalize": True, "rescale": True, "lambda": 1.0},
    ),
    "breadcrumbs": _of_field(
        {"density": 0.9, "gamma": 0.01, "normalize_weights": False, "scaling_factor": 1.0},
        {"density": 0.9, "gamma": 0.01, "normalize": False, "lambda": 1.0},
    ),
    "karcher": _of_field({"max_iter": 10, "tol": 1e-5}, {"max_iter": 10, "tol": 1e-5}, base=False, weighted=False),
    "model_stock": _of_field({}, {}, weighted=False),
}
STRATEGIES = tuple(METHODS)
