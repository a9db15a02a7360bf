"""Writes agreeing_merge.json beside the weights of merges by the strategy: which model was trusted how much."""

import json

from modelmerger import MergePlan, hookimpl

STRATEGY = "agreeing_merge"


@hookimpl
def write_sidecars(plan: MergePlan) -> dict[str, bytes]:
    """The file, or none where another strategy merged. The same merge gives the same bytes."""
    if plan.strategy != STRATEGY:
        return {}
    trusted = {model.name: model.own_options() for model in plan.models if model.weight is not None}
    return {f"{STRATEGY}.json": json.dumps(trusted, indent=2).encode() + b"\n"}
