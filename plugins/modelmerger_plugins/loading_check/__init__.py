"""Finds out whether the transformers class that the merged config.json names loads what will be written."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelmerger import WHOLE_MODEL, Checkpoint, Inquiry, MergePlan, Problem, hookimpl, is_executable, quantised_tensors

from modelmerger_plugins.loading_check.signs import signs
from modelmerger_plugins.transformers_classes import is_known, unnamed

CONFIG = "config.json"
ANSWERS = "modelmerger_plugins.loading_check.answering:answer"
COSTS = ("transformers.modeling_utils",)
ALONE = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}
"""Environment of a process that reaches no network, and starts no threads."""
OPTIONAL = ("accelerate", "scipy", "sklearn", "torchvision", "PIL", "librosa")
"""Packages that transformers imports where they are installed, and that few classes need to be built."""


@hookimpl
def check_output(
    plan: MergePlan, checkpoints: Sequence[Checkpoint], configs: Mapping[str, Mapping[str, Any]], thorough: bool
) -> Iterable[Problem | Inquiry]:
    """Signs that the class cannot load the output, and an inquiry that builds the class to see. Nothing of adapters."""
    config = configs.get(CONFIG)
    name = architecture(config or {})
    if config is None or name is None or plan.writes != WHOLE_MODEL:
        return
    donor = checkpoints[plan.donor]
    if not is_known(name, config.get("model_type")):
        if thorough:
            message = f"transformers has no class {name}, so it is not known whether the merged model loads."
            yield Problem(message, f"{donor.place}/{CONFIG}", severity="note")
        return
    if config.get("quantization_config") or any(quantised_tensors(one.tensors) for one in checkpoints):
        if thorough:
            message = "the weights are quantised, so it is not known whether the merged model loads."
            yield Problem(message, f"{donor.place}/{CONFIG}", severity="note")
        return
    apart = plan.layout.apart
    shapes = {tensor.name: list(tensor.shape) for tensor in plan.tensors if tensor.name not in apart}
    found = list(signs(list(shapes), config))
    yield from found
    if thorough and not found:
        yield Inquiry(
            ANSWERS,
            {
                "architecture": name,
                "config": without_code(config),
                "tensors": shapes,
                "place": f"{donor.place}/{CONFIG}",
                "donor": donor.name,
                "donor_architecture": architecture(donor.donor.config or {}),
                "donor_config": without_code(donor.donor.config or {}),
                "donor_tensors": _all_tensors(donor, plan),
            },
            "whether transformers loads the merged model",
            COSTS,
            ALONE,
            tuple(unnamed(OPTIONAL, config)),
        )


def architecture(config: Mapping[str, Any]) -> str | None:
    """The name of the class that the config wants; None where it names none."""
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else names
    return name if isinstance(name, str) else None


def without_code(value: Any) -> Any:
    """The config without keys that can make a loader run code, at any depth."""
    if isinstance(value, Mapping):
        return {key: without_code(member) for key, member in value.items() if not is_executable(key)}
    return [without_code(member) for member in value] if isinstance(value, list) else value


def _all_tensors(donor: Checkpoint, plan: MergePlan) -> dict[str, list[int]]:
    """Shapes by name, those of tied tensors too, which are left out of a checkpoint, and none that go to a folder."""
    apart = plan.layout.apart
    shapes = {name: list(info.shape) for name, info in donor.tensors.items() if name not in apart}
    return shapes | {alias: shapes[name] for alias, name in donor.aliases.items() if name in shapes}
