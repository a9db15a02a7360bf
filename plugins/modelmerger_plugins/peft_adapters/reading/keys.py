"""Which tensors of an adapter change which tensor of its base, and how.

Every tensor of the adapter changes one of the base, or there is a problem that lists it.
"""

from collections.abc import Iterator

from attrs import field, frozen
from modelmerger import Base, Checkpoint, Problem, shown

from modelmerger_plugins.peft_adapters.changes.change import Change
from modelmerger_plugins.peft_adapters.reading import lora, other_kinds, tied, trained_whole
from modelmerger_plugins.peft_adapters.reading.config import AdapterConfig
from modelmerger_plugins.peft_adapters.reading.misfits import MisfitError, Misfits
from modelmerger_plugins.peft_adapters.reading.modules import BELOW, TRAINED_ROWS, TRAINED_WHOLE, Keys, gathered
from modelmerger_plugins.peft_adapters.reading.naming import names_in_base
from modelmerger_plugins.peft_adapters.reading.orientation import Orientation
from modelmerger_plugins.peft_adapters.reading.pairing import Pairing
from modelmerger_plugins.peft_adapters.reading.parameters import TargetParameters


@frozen(eq=False)
class Reading:
    """What an adapter's tensors mean for a base."""

    changes: dict[str, list[Change]] = field(factory=dict)
    """Base tensor → what is done to it, in order."""
    problems: list[Problem] = field(factory=list)
    """All that does not fit; nothing may be merged with one."""


def read_keys(config: AdapterConfig, adapter: Checkpoint, base: Base, untie_key: str) -> Reading:
    """The changes that an adapter makes of a base.

    `untie_key`: of the config, by which matrices that the base ties become two; empty where there is no such way.
    Raises `InputError` for a config that gives a module no scale, or has patterns that would take very long.
    """
    reading, misfits = Reading(), Misfits()
    modules = gathered(adapter, config.kind, misfits)
    aliases = tied.aliases_of(base.checkpoint)
    names = names_in_base(adapter, base.checkpoint, aliases, modules, config.flag("fan_in_fan_out"))
    pair = Pairing(config, adapter, base.checkpoint, base.key, untie_key, aliases, names)
    config.check_patterns(len(modules))
    if not misfits.ungathered:
        for module in tied.repeated(pair, modules):
            del modules[module]
        _read_parameters(TargetParameters(pair), modules, reading, misfits)
        _read_modules(pair, modules, reading, misfits)
    reading.problems.extend(misfits.problems(adapter))
    if config.values.get("trainable_token_indices") and not any("token_adapter" in key for key in adapter.tensors):
        message = "holds no rows for trainable_token_indices. Is the adapter complete?"
        reading.problems.append(Problem(message, adapter.place))
    return reading


def _read_parameters(
    parameters: TargetParameters, modules: dict[str, dict[str, str]], reading: Reading, misfits: Misfits
) -> None:
    """Takes the modules of `target_parameters` out of all of them, and reads them."""
    adapter = parameters.pair.adapter
    nested: dict[str, list[str]] = {}
    for name in modules:
        nested.setdefault(name.replace(BELOW, ""), []).append(name)
    there = sorted(nested)
    for name in parameters.without(there):
        message = f"holds no factors of {shown(name)}, which target_parameters names. Is the adapter complete?"
        reading.problems.append(Problem(message, adapter.place))
    for module in there:
        if not parameters.targets_in(module):
            continue
        levels = [modules.pop(name) for name in sorted(nested[module], key=len)]
        try:
            for tensor, change in parameters.changes(module, levels):
                reading.changes.setdefault(tensor, []).append(change)
        except MisfitError as misfit:
            misfits.add(misfit, (key for of_level in levels for key in of_level.values()))


def _read_modules(pair: Pairing, modules: dict[str, dict[str, str]], reading: Reading, misfits: Misfits) -> None:
    """Reads all other modules; what was trained whole comes before what is added to it."""
    orientation = Orientation(pair, modules)
    for module, keys in sorted(modules.items(), key=lambda item: TRAINED_WHOLE not in item[1]):
        try:
            for tensor, change in _changes(pair, orientation, module, keys):
                reading.changes.setdefault(tensor, []).append(change)
        except MisfitError as misfit:
            misfits.add(misfit, keys.values())


def _changes(pair: Pairing, orientation: Orientation, module: str, keys: Keys) -> Iterator[tuple[str, Change]]:
    """Base tensors and changes of one module, by the roles of its tensors. Raises `MisfitError`."""
    roles = set(keys)
    if roles == {TRAINED_WHOLE}:
        yield trained_whole.of_tensor(pair, module, keys[TRAINED_WHOLE])
    elif roles == {TRAINED_ROWS}:
        yield trained_whole.of_rows(pair, module, keys[TRAINED_ROWS])
    elif {"lora_embedding_A", "lora_embedding_B"} <= roles <= lora.OF_EMBEDDINGS:
        yield from lora.of_embedding(pair, module, keys)
    elif {"lora_A", "lora_B"} <= roles <= lora.OF_LAYERS:
        yield from lora.of_layer(pair, orientation, module, keys)
    elif roles == {"ia3_l"}:
        yield from other_kinds.ia3(pair, module, keys)
    elif roles == {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}:
        yield from other_kinds.loha(pair, module, keys)
    elif roles == {"vera_lambda_b", "vera_lambda_d"}:
        yield from other_kinds.vera(pair, module, keys)
    elif {"lokr_w1", "lokr_w2"} <= {role.removesuffix("_a").removesuffix("_b") for role in roles}:
        yield from other_kinds.lokr(pair, module, keys)
    else:
        raise MisfitError(
            f"is one of the parts {', '.join(sorted(roles))} of {shown(module)}, which together mean nothing"
        )
