"""Model Stock: from the average of fine-tunes, back towards the base by as much as they disagree.

    merged = θ_base + t/N · Σ τᵢ,   t = N·c / (1 + (N − 1)·c),   τᵢ = θᵢ − θ_base

c is the mean cosine between the task vectors τᵢ of a tensor. Jang, Yun and Han 2024, "Model Stock: All we need is just
a few fine-tuned models", https://arxiv.org/abs/2403.19522, section 4: the point of the fine-tunes' plane that is
nearest to the centre of the shell they lie on.

For a few fine-tunes of one base on the same data, with other seeds or settings. Not for fine-tunes of different tasks:
their task vectors are nearly orthogonal, so c is near 0, and little but the base is left.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations

from modelmerger import Checkpoint, Problem, Settings, Traits, amount, hookimpl, models_behind, shown

traits = Traits(models=(2, None), inputs="updates", gram=True, weights=False)


@hookimpl
def check_compatibility(checkpoints: Sequence[Checkpoint], settings: Settings) -> Iterable[Problem]:
    """A warning for each adapter that changes what no other model changes: of that, nothing is left."""
    changed = {model: _changed(model) for model in checkpoints[: len(settings.models)]}
    if not all(changed.values()):  # whole models may change anything
        return
    counts = Counter(name for names in changed.values() for name in names)
    for model, names in changed.items():
        lost = sorted(name for name in names if counts[name] == 1)
        if lost:
            kinds = sorted({(name.split(".")[-2:] or [name])[0] for name in lost})
            some = ", ".join(shown(kind, 30) for kind in kinds[:3]) + (", …" if len(kinds) > 3 else "")
            message = (
                f"what '{model.name}' changes of {some} is lost ({amount(len(lost), 'tensor')}): "
                "no other model changes that, and model_stock leaves the base where models do not agree."
            )
            yield Problem(message, model.place, severity="warning")


def _changed(model: Checkpoint) -> set[str]:
    """The tensors of the base that adapters change in a model; none where it is, or is made of, a whole model."""
    behind = models_behind([model])
    bases = [id(one.base.checkpoint) for one in behind if one.base is not None]
    adapters = [one for one in behind if id(one) not in bases]
    return set().union(*(one.changes for one in adapters)) if all(one.changes for one in adapters) else set()


@hookimpl
def find_coefficients(gram: Sequence[Sequence[float]] | None) -> list[float] | None:
    """t/N for each model.

    A model that does not change the tensor has a cosine of 0 with every other. Where the mean cosine is not above 0,
    t is 0, and the base is left: the formula would turn the task vectors round.
    """
    if gram is None:
        return None
    count = len(gram)
    cosines = [_cosine(gram, i, j) for i, j in combinations(range(count), 2)]
    mean = max(0.0, math.fsum(cosines) / len(cosines))
    return [mean / (1 + (count - 1) * mean)] * count


def _cosine(gram: Sequence[Sequence[float]], i: int, j: int) -> float:
    norms = math.sqrt(gram[i][i]) * math.sqrt(gram[j][j])
    return max(-1.0, min(1.0, gram[i][j] / norms)) if norms else 0.0
