"""What else is to be done for a method, once its parameters have their names here."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modelmerger import Problem

Config = dict[str, Any]
Told = Mapping[str, Any]
NEARLY_PARALLEL = math.sqrt(1 - 0.9995**2)
"""The sine of the angle whose cosine is 0.9995, from which on mergekit's slerp is linear."""

BY_CHANCE = ("dare_linear", "dare_ties", "della", "della_linear")
"""Methods that drop elements at random."""


def finished(method: str, config: Config, told: Told, file: str, notes: list[Problem]) -> Config:
    """The merge as its strategy wants it. told: the parameters of all inputs, by mergekit's names."""
    if method in _NOTES:
        notes += [Problem(said, file, severity="note") for said in _NOTES[method](config, told)]
    made = _SPECIAL[method](config, told) if method in _SPECIAL else config
    return {key: value for key, value in made.items() if value != {}}


def slerp(config: Config, base: Config) -> Config:
    """Between base and other model, combined as they are, and linearly from a cosine of 0.9995 on."""
    options = {**config["options"], "normalize_before_slerp": False, "epsilon": NEARLY_PARALLEL}
    if _is_beyond(options["interpolation_factor"]):
        options["extrapolation_factor"] = options.pop("interpolation_factor")
    return {"strategy": "slerp", "models": [base, *config["models"]], "options": options}


def _is_beyond(factor: Any) -> bool:
    """Whether any of the numbers is below 0 or above 1."""
    if isinstance(factor, Mapping):
        return any(map(_is_beyond, factor.values()))
    return any(map(_is_beyond, factor)) if isinstance(factor, list | tuple) else not 0 <= factor <= 1


def _nuslerp(config: Config, _: Told) -> Config:
    """Without a base, slerp of the models; weights that add up to 0 count as equal."""
    weights = [model["weight"] for model in config["models"]]
    if all(isinstance(weight, int | float) for weight in weights) and abs(sum(weights)) < 1e-8:
        for model in config["models"]:
            model["weight"] = 1.0
    if "base_model" in config:
        return config
    return {**config, "strategy": "slerp", "options": {"normalize_before_slerp": False}}


def _multislerp(config: Config, _: Told) -> Config:
    """Without a base, of the tensors as they are: what they change of zero. One model is taken as it is."""
    if len(config["models"]) == 1:
        config["models"][0]["weight"] = 1.0
    if "base_model" not in config:
        first = {key: value for key, value in config["models"][0].items() if key != "weight"}
        config["base_model"] = {"merge": {"strategy": "passthrough", "models": [first], "options": {"scale": 0.0}}}
    return config


def _task_arithmetic(config: Config, _: Told) -> Config:
    """Normalised, it is what DARE comes to where nothing is dropped."""
    if not config["options"].pop("normalize_weights"):
        return config
    options = {**config["options"], "normalize_weights": True, "density": 1.0, "rescale": False}
    return {**config, "strategy": "dare_linear", "options": options}


def _rescaled(config: Config, told: Told) -> Config:
    """The sum of magnitudes of each tensor is restored."""
    config["options"]["rescale"] = "l1" if told["rescale"] else False
    return config


def _passthrough(config: Config, _: Told) -> Config:
    scale = config["models"][0].pop("scale", None)
    if scale is not None and scale != 1.0:
        config["options"]["scale"] = scale
    return config


def _of_dare(config: Config, told: Told) -> Sequence[str]:
    if all(model.get("density") == 1 for model in config["models"]):
        return ["density is 1, so nothing is dropped, and this is no DARE"]
    said = (
        "what is kept is scaled to the sum of magnitudes that each tensor had (rescale: l1), as in mergekit; the paper "
        "divides by density (rescale: true)"
    )
    return [*([said] if told["rescale"] else []), *_of_chance(config, told)]


def _of_chance(_: Config, __: Told) -> list[str]:
    return ["which elements are dropped follows from options.seed; mergekit drops others, and others in each run"]


def _of_sce(_: Config, __: Told) -> Sequence[str]:
    said = (
        "models are weighed by their energy however small that is; mergekit weighs them equally where the mean squares "
        "of their differences add up to less than 1e-6"
    )
    return [said]


_SPECIAL: Mapping[str, Callable[[Config, Told], Config]] = {
    "nuslerp": _nuslerp,
    "multislerp": _multislerp,
    "task_arithmetic": _task_arithmetic,
    "dare_linear": _rescaled,
    "dare_ties": _rescaled,
    "della": _rescaled,
    "della_linear": _rescaled,
    "passthrough": _passthrough,
}
"""By mergekit's names."""
_NOTES: Mapping[str, Callable[[Config, Told], Sequence[str]]] = {
    "dare_linear": _of_dare,
    "dare_ties": _of_dare,
    "della": _of_chance,
    "della_linear": _of_chance,
    "sce": _of_sce,
}
"""What is to be said of a method, by mergekit's names."""
