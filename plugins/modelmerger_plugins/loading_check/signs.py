"""Signs that names do not fit a class, which need nothing but the names and the config."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelmerger import Problem, amount, shown

from modelmerger_plugins.transformers_classes import foreign_fronts

WRAPPERS = {
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "base_model.model": "PEFT",
    "module": "DistributedDataParallel or DeepSpeed",
}
"""What wrappers put into the names of the tensors of the model that they wrap, and which wrapper that is."""
COUNTS = ("num_hidden_layers", "n_layer")
STACK = re.compile(r"((?:[A-Za-z_]+\.){0,2}(?:layers|layer|h|blocks))\.([0-9]{1,6})\.")
OF_SEVERAL_STACKS = ("encoder_layers", "decoder_layers", "num_decoder_layers", "is_encoder_decoder")
OF_FURTHER_LAYERS = ("nextn", "mtp")
"""What keys of configs hold that say how many layers there are beyond those of the model, for predicting further."""


def signs(names: Sequence[str], config: Mapping[str, Any]) -> Iterable[Problem]:
    """An error for each sign. names: of the tensors to be written."""
    yield from _wrappers(names)
    yield from _front(names, config)
    yield from _layers(names, config)


def _wrappers(names: Sequence[str]) -> Iterable[Problem]:
    for part, wrapper in WRAPPERS.items():
        wrapped = [name for name in names if name.startswith(f"{part}.") or (part[0] == "_" and f".{part}." in name)]
        if 2 * len(wrapped) > len(names):
            message = (
                f"{amount(len(wrapped), 'tensor')} would be written under names with '{part}.', which {wrapper} puts "
                f"around a model, and no class loads them. Save the models without it."
            )
            yield Problem(message, tensor=wrapped[0])
            return


def _front(names: Sequence[str], config: Mapping[str, Any]) -> Iterable[Problem]:
    """A part in front of most names, but not of all, that no module of the class's family is called."""
    front, count = Counter(name.partition(".")[0] for name in names).most_common(1)[0] if names else ("", 0)
    begun = [name for name in names if name.startswith(f"{front}.")]
    if 2 * count <= len(names) or count == len(names) or front in WRAPPERS or not foreign_fronts(config, begun):
        return
    message = (
        f"{amount(count, 'tensor')} would be written under names with '{shown(front, 40)}.', and no module of the "
        "class in config.json is called so. Save the model in it alone."
    )
    yield Problem(message, tensor=begun[0])


def _layers(names: Sequence[str], config: Mapping[str, Any]) -> Iterable[Problem]:
    """Compares how many layers there are with what the config says, where it speaks of one stack alone."""
    key = next((key for key in COUNTS if type(config.get(key)) is int), None)
    if key is None or any(config.get(other) for other in OF_SEVERAL_STACKS):
        return
    if any(isinstance(value, Mapping) and COUNTS[0] in value for value in config.values()):
        return
    stacks: dict[str, set[int]] = {}
    for name in names:
        if (found := STACK.match(name)) is not None:
            stacks.setdefault(found[1], set()).add(int(found[2]))
    if len(stacks) != 1:
        return
    ((stack, layers),) = stacks.items()
    further = any(part in name for name in config for part in OF_FURTHER_LAYERS)
    if layers != set(range(len(layers))) or len(layers) == config[key] or (len(layers) > config[key] and further):
        return
    message = (
        f"{key} is {config[key]} in the merged model's config.json, and the weights have "
        f"{amount(len(layers), 'layer')} ({stack}). Correct the config, or merge models that are whole."
    )
    yield Problem(message)
