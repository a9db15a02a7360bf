"""The configs of the merged model: the donor's, as plugins adjust them. Known before the first write, like the plan."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelmerger.hooks.assembly import Hooks
from modelmerger.values.checkpoint import Checkpoint, Donor
from modelmerger.values.composition import Composition
from modelmerger.values.plan import WHOLE_MODEL, MergePlan
from modelmerger.values.settings import Settings

CONFIG, GENERATION = "config.json", "generation_config.json"
"""The names of their files."""
Configs = Mapping[str, Mapping[str, Any]]
"""The name of a file → the config."""


def adjusted_configs(
    hooks: Hooks,
    checkpoints: Sequence[Checkpoint],
    settings: Settings,
    plan: MergePlan,
    composition: Composition | None = None,
) -> Configs:
    """Those that the composition has, else those of the donor; none where what is written is not a whole model.

    Within another merge, only the strategy adjusts them. Raises `PluginError`.
    """
    donor, own = checkpoints[plan.donor].donor, composition.checkpoint.donor if composition else Donor()
    config = donor.config if own.config is None else own.config
    generation = donor.generation if own.generation is None else own.generation
    if plan.writes != WHOLE_MODEL:
        return {}
    found: dict[str, Mapping[str, Any]] = {}
    if config is not None:
        found[CONFIG] = hooks.output.adjust_config(CONFIG, config, plan, checkpoints, settings)
    if adjusted := hooks.output.adjust_config(GENERATION, generation or {}, plan, checkpoints, settings):
        found[GENERATION] = adjusted
    elif generation is not None:
        found[GENERATION] = {}
    return found
