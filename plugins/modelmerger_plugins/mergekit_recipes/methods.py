"""mergekit's methods: their parameters, with mergekit's defaults, and the strategies here."""

from typing import Any, Literal

from attrs import field, frozen

REQUIRED = object()
"""In place of a default: there is none."""
Kind = Literal["number", "count", "truth"]


@frozen
class Parameter:
    """What a method reads under a name."""

    default: Any
    """mergekit's; None: nothing is done; `REQUIRED`: it must be given."""
    option: str = ""
    """What it is called here; empty where it has no counterpart, so only the default will do."""
    kind: Kind = "number"
    varies: bool = False
    """Whether it may vary by tensor here."""


@frozen
class Method:
    """One of mergekit's methods."""

    strategy: str
    per_input: dict[str, Parameter] = field(factory=dict)
    """Parameters that each input has of its own."""
    shared: dict[str, Parameter] = field(factory=dict)
    """Parameters that all inputs have together."""
    base: Literal["none", "optional", "required"] = "required"
    """Whether a base model takes part as such."""
    fewest: int = 1
    """Inputs beside the base, at least."""
    most: int | None = None
    """At most."""
    no_effect: tuple[str, ...] = ()
    """Parameters that it takes and does nothing with."""

    @property
    def parameters(self) -> dict[str, Parameter]:
        """All of them."""
        return {**self.per_input, **self.shared}


def _truth(default: bool, option: str = "") -> Parameter:
    return Parameter(default, option, "truth")


_WEIGHT = {"weight": Parameter(REQUIRED, "weight", varies=True)}
_DENSITY = {"density": Parameter(1.0, "density", varies=True)}
_LAMBDA = {"lambda": Parameter(1.0, "scaling_factor", varies=True)}
_GAMMA = {"gamma": Parameter(0.01, "gamma", varies=True)}
_EPSILON = {"epsilon": Parameter(0.15, "epsilon", varies=True)}


def _task_vectors(
    strategy: str, sparse: dict[str, Parameter], *, normalize: bool, rescale: Parameter | None = None
) -> Method:
    shared = {**_LAMBDA, "normalize": _truth(normalize, "normalize_weights")}
    shared |= {} if rescale is None else {"rescale": rescale}
    return Method(strategy, {**_WEIGHT, **sparse}, shared, fewest=0, no_effect=() if sparse else ("density",))


_THINNED = _truth(default=False)
_DROPPED = _truth(default=True, option="rescale")
METHODS = {
    "linear": Method("weighted", _WEIGHT, {"normalize": _truth(default=True, option="normalize_weights")}, "none"),
    "slerp": Method("slerp", {}, {"t": Parameter(REQUIRED, "interpolation_factor", varies=True)}, most=1),
    "nuslerp": Method(
        "nuslerp",
        _WEIGHT,
        {"nuslerp_flatten": _truth(default=True), "nuslerp_row_wise": _truth(default=False)},
        "optional",
        2,
        2,
    ),
    "multislerp": Method(
        "multislerp",
        _WEIGHT,
        {"normalize_weights": _truth(default=True, option="normalize_weights")},
        "optional",
        no_effect=("eps",),
    ),
    "karcher": Method(
        "karcher", {}, {"max_iter": Parameter(10, "max_iter", "count"), "tol": Parameter(1e-5, "tol")}, "none"
    ),
    "task_arithmetic": _task_vectors("task_arithmetic", {}, normalize=False),
    "ties": _task_vectors("ties", _DENSITY, normalize=True, rescale=_THINNED),
    "dare_linear": _task_vectors("dare_linear", _DENSITY, normalize=False, rescale=_DROPPED),
    "dare_ties": _task_vectors("dare_ties", _DENSITY, normalize=False, rescale=_DROPPED),
    "breadcrumbs": _task_vectors("breadcrumbs", _DENSITY | _GAMMA, normalize=False, rescale=_THINNED),
    "breadcrumbs_ties": _task_vectors("breadcrumbs_ties", _DENSITY | _GAMMA, normalize=False, rescale=_THINNED),
    "della": _task_vectors("della", _DENSITY | _EPSILON, normalize=True, rescale=_DROPPED),
    "della_linear": _task_vectors("della_linear", _DENSITY | _EPSILON, normalize=False, rescale=_DROPPED),
    "sce": Method("sce", {}, {"select_topk": Parameter(1.0, "density", varies=True)}, fewest=0),
    "model_stock": Method("model_stock", {}, {"filter_wise": _truth(default=False)}, fewest=2),
    "nearswap": Method("nearswap", {}, {"t": Parameter(REQUIRED, "t", varies=True)}, most=1),
    "arcee_fusion": Method("arcee_fusion", {}, {}, most=1),
    "ram": Method("ram", {}, {"epsilon": Parameter(1e-5, "epsilon")}, fewest=0),
    "ramplus_tl": Method(
        "ramplus_tl",
        {},
        {"r": Parameter(0.1, "r"), "alpha": Parameter(0.2, "alpha"), "epsilon": Parameter(1e-5, "epsilon")},
        fewest=0,
    ),
    "passthrough": Method("passthrough", {"scale": Parameter(None, "scale", varies=True)}, {}, "none", 1, 1),
}
"""By mergekit's names."""
EVERY_PARAMETER = sorted({name for method in METHODS.values() for name in method.parameters} | {"density"})
"""Names that some method reads."""
NO_OPS = ("int8_mask", "residual_weight", "name")
"""Keys that change no result, wherever they stand."""
