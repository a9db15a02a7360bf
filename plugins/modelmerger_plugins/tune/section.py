"""The section `tune` of a config, and `tuned`, which says in a config where its numbers come from."""

from typing import Literal

from attrs import field, frozen
from modelmerger import must_be_between, must_not_be_empty

Method = Literal["auto", "gradient", "gap", "cma", "tpe", "nsga2"]
LOSSES = ("loss", "bits_per_byte")
"""Metrics that are measured line by line; others are those of validators."""
Per = Literal["model", "layer", "tensor", "auto"]


@frozen(kw_only=True)
class Found:
    """A number that `modelmerger tune` finds, in place of a weight or of another number."""

    tune: tuple[float, float]
    """The smallest value that it may have, and the largest."""
    start: float | None = None
    """Where the search begins; without it, in the middle."""
    per: Per = "auto"
    """What has a number of its own; auto: the finest that the lines bear."""


@frozen(kw_only=True)
class Objective:
    """What is made as small as it can be."""

    metric: str = field(default="loss", validator=must_not_be_empty)
    """`loss` (nats a token), `bits_per_byte`, or a metric of a validator."""
    relative: bool = True
    """Whether each split counts by its gap: how much worse it is than under the best source of that split, as a
    share."""
    take: Literal["worst", "mean"] | dict[str, float] = "worst"
    """Of several splits the worst, their mean, or a mean with a weight for each split."""

    @property
    def name(self) -> str:
        """What it is called beside others: `worst loss`."""
        if isinstance(self.take, str):
            return f"{self.take} {self.metric}"
        shown = (split if weight == 1 else f"{weight:g} {split}" for split, weight in self.take.items() if weight)
        return f"{self.metric} of {' + '.join(shown)}"


@frozen(kw_only=True)
class Search:
    """How the numbers are searched."""

    method: Method = "auto"
    """`gradient` for linear strategies; `gap`, one pass without steps; `tpe`, `cma` and `nsga2`, of Optuna, for
    anything; auto: nsga2 for several objectives, else gradient where there is one, else tpe."""
    steps: int = field(default=20, validator=must_be_between(1, 100_000))
    """Steps of the gradient, or vectors of numbers that are tried."""
    penalty: float = field(default=0.02, validator=must_be_between(0, 1e6))
    """What the mean squared distance from the start costs, in units of the objective: that of the coefficients which
    multiply models or their differences from the base (in task_arithmetic, weight × scaling_factor), so that it does
    not matter how a config divides them. Of a strategy without such, that of the numbers."""
    seed: int = field(default=0, validator=must_be_between(0, 2**31))
    """Of the search, where chance has a part in it."""
    rate: float = field(default=0.05, validator=must_be_between(0, 1, open_below=True))
    """Length of the first step of the gradient, as a share of the range of a number."""
    prune: bool = True
    """With tpe, whether what is worse than the median after a quarter of the lines, or half of them, is dropped."""
    batch_tokens: int = field(default=4096, validator=must_be_between(1, 2**24))
    """Tokens that go through the model at a time, with padding."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """Of the arithmetic of losses and gradients."""


def _some(_: object, __: object, value: object) -> None:
    if value == ():
        raise ValueError("must be an objective, or a list of at least one, got an empty list")


@frozen(kw_only=True)
class Tune:
    """What `modelmerger tune` searches, and on what text."""

    texts: str | tuple[str, ...] | dict[str, str] = ""
    """Lines to tune on: a JSONL file with `text` and `dialect` (or `split`) in each line, one text file or several,
    each a split of its name, or a mapping from splits to files."""
    test_texts: str | tuple[str, ...] | dict[str, str] = ""
    """Lines to test on; without it, a third of the lines, chosen by their hash."""
    objective: str | Objective | tuple[str | Objective, ...] = field(factory=Objective, validator=_some)
    """What is made small: the name of a metric, or a mapping; or a list of these, all of which are made small."""
    constraints: tuple[str, ...] = ()
    """Comparisons that must hold, such as `gap(*) <= 0.05` and `loss(msa) <= 1.06 * loss(base, msa)`."""
    search: Search = field(factory=Search)
    """How it is searched."""

    @property
    def goals(self) -> tuple[Objective, ...]:
        """The objectives as mappings have them."""
        given = self.objective if isinstance(self.objective, tuple) else (self.objective,)
        return tuple(Objective(metric=one) if isinstance(one, str) else one for one in given)

    @property
    def goal(self) -> Objective:
        """The first objective."""
        return self.goals[0]


@frozen(kw_only=True)
class Tuned:
    """Where the numbers of a config come from. It changes nothing that is merged."""

    search: Tune = field(factory=Tune)
    """The section `tune` of the config that was tuned."""
    study: str = ""
    """The BLAKE3 digest of the study."""
    texts: dict[str, str] = field(factory=dict)
    """BLAKE3 digests of the lines, by part and split (`tune/gulf`)."""
