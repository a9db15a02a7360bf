"""Adapters that change an LM head and the embedding that it is tied to in one way, as `ensure_weight_tying` saves them.

PEFT keeps the two equal in training and writes both. On a tied base they are one matrix, which is changed once.
"""

from collections.abc import Mapping

from modelmerger import Checkpoint

from modelmerger_plugins.peft_adapters.reading import values
from modelmerger_plugins.peft_adapters.reading.modules import TRAINED_ROWS, TRAINED_WHOLE, Keys
from modelmerger_plugins.peft_adapters.reading.pairing import Pairing
from modelmerger_plugins.transformers_classes import tied_by_class


def aliases_of(base: Checkpoint) -> Mapping[str, str]:
    """Tensors that a base leaves out → the one that they are tied to: as it says itself, or as its class has it."""
    config = base.donor.config or {}
    by_class = {} if config.get("tie_word_embeddings") is False else tied_by_class(config)
    missing = {tensor: other for tensor, other in by_class.items() if tensor not in base.tensors}
    return {tensor: other for tensor, other in missing.items() if other in base.tensors} | dict(base.aliases)


def repeated(pair: Pairing, modules: Mapping[str, Keys]) -> list[str]:
    """The modules whose tensor the base ties to another one, for which the adapter has the very same change."""
    places: dict[tuple[str, bool], str] = {}
    for module, keys in modules.items():
        places[_tensor(pair, module, keys), TRAINED_WHOLE in keys] = module
    found = []
    for (tensor, whole), module in places.items():
        target = pair.aliases.get(tensor, "") if tensor not in pair.base.tensors else ""
        other = places.get((target, whole))
        if other is not None and _are_one(pair, module, modules[module], other, modules[other]):
            found.append(module)
    return found


def _tensor(pair: Pairing, module: str, keys: Keys) -> str:
    return pair.in_base(module if TRAINED_WHOLE in keys else f"{module}.weight")


def _are_one(pair: Pairing, module: str, ours: Keys, other: str, theirs: Keys) -> bool:
    """Whether two modules are changed in one way. `ours`: of an LM head; `theirs`: of an embedding."""
    if ours.keys() == theirs.keys() and ours.keys() <= {TRAINED_WHOLE, TRAINED_ROWS}:
        return all(values.are_equal(pair.adapter, ours[role], theirs[role]) for role in ours)
    if ours.keys() != {"lora_A", "lora_B"} or theirs.keys() != {"lora_embedding_A", "lora_embedding_B"}:
        return False
    config = pair.config
    if config.rank(module) != config.rank(other) or config.alpha(module) != config.alpha(other):
        return False
    matching = (("lora_A", "lora_embedding_B"), ("lora_B", "lora_embedding_A"))
    return all(values.are_transposed(pair.adapter, ours[one], theirs[two]) for one, two in matching)
