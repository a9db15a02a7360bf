"""Keys of adapters that something else than PEFT's `save_pretrained` wrote, turned into those that PEFT writes.

A state dict that was saved as it is has the adapter's name in its keys (`lora_A.default.weight`), wrappers leave theirs
(`_orig_mod.`, `module.`), and some tools leave out `base_model.model.`, or call the factors `lora_down` and `lora_up`.
"""

import re
from collections.abc import Iterable

from modelmerger import Checkpoint, CheckpointView, InputError, Problem, shown

from modelmerger_plugins.names import unwrapped
from modelmerger_plugins.peft_adapters.reading.modules import PREFIX, PROJECTIONS, ROLES

_ORIGINAL = re.compile(r"\.(original_module|trainable_tokens_original|token_indices)(?=\.|\Z)")
"""What a wrapper of PEFT keeps beside what is trained, and `save_pretrained` leaves out."""
_NAMED = re.compile(rf"(.+\.(?:{ROLES}))\.(?!weight\Z|bias\Z)([^.]+)(\.weight|\.bias)?")
_NAMED_WHOLE = re.compile(r"(.+\.modules_to_save)\.([^.]+)(\..+)")
_NAMED_PROJECTION = re.compile(rf"({'|'.join(map(re.escape, PROJECTIONS))})\.([^.]+)()")


_FACTORS = (
    (re.compile(r"\.lora[_.]down(?=\.weight\Z)"), ".lora_A", "lora_down"),
    (re.compile(r"\.lora[_.]up(?=\.weight\Z)"), ".lora_B", "lora_up"),
)
"""What kohya's scripts and diffusers call the two factors of LoRA."""


def as_peft_writes(stored: Checkpoint) -> tuple[Checkpoint, list[Problem]]:
    """The adapter under the keys that PEFT writes, and a note of what was left out of its own, if anything was.

    Raises `InputError` for a file that holds several adapters, or two tensors that come to one key.
    """
    kept = [key for key in stored.tensors if not _ORIGINAL.search(key)]
    shared = [key for key in kept if key.startswith(PROJECTIONS)]
    plain = unwrapped(key for key in kept if not key.startswith(PROJECTIONS))
    said = [f"{part}." for part in plain.counts if f"{part}." != PREFIX]
    begun = any(name.startswith(PREFIX) for name in plain.names.values())
    keys = {key: name if begun else f"{PREFIX}{name}" for key, name in plain.names.items()}
    for pattern, ours, theirs in _FACTORS:
        factors = {key: pattern.sub(ours, name) for key, name in keys.items()}
        said += [theirs] if factors != keys else []
        keys = factors
    keys |= {key: key for key in shared}
    adapter = _adapter_name(keys.values(), stored)
    if adapter:
        keys = {key: _without(name, adapter) for key, name in keys.items()}
        said.append(f".{adapter}")
    views = {name: key for key, name in keys.items()}
    if len(views) < len(keys):
        key, name = next((key, name) for key, name in keys.items() if views[name] != key)
        message = f"holds {shown(key, 80)} and {shown(views[name], 80)}, which are one tensor to PEFT. Remove one."
        raise InputError(Problem(message, stored.place))
    notes = [f"hold {', '.join(shown(part, 40) for part in said)}, which PEFT does not write"] if said else []
    if keys and not begun and not plain.counts.get(PREFIX.rstrip(".")):
        notes.append(f"do not begin with {PREFIX}")
    if plain.counts.get(PREFIX.rstrip("."), 0) > len(plain.names):
        notes.append(f"repeat {PREFIX}")
    if len(kept) < len(stored.tensors):
        notes.append("list what PEFT keeps beside the adapter")
    if all(name == key for name, key in views.items()) and len(views) == len(stored.tensors):
        return stored, []
    message = f"has keys that {' and '.join(notes)}. They are read as those of PEFT."
    return CheckpointView(stored, views), [Problem(message, stored.place, severity="note")]


def _adapter_name(keys: Iterable[str], stored: Checkpoint) -> str:
    """The name of the adapter that stands in the keys; empty where none does. Raises `InputError` for several."""
    names = {match[2] for key in keys if (match := _NAMED.fullmatch(key) or _NAMED_PROJECTION.fullmatch(key))}
    if len(names) > 1:
        some = ", ".join(shown(name, 40) for name in sorted(names)[:5])
        message = f"holds {len(names)} adapters in one file ({some}). Save each by itself (selected_adapters)."
        raise InputError(Problem(message, stored.place))
    if names:
        return names.pop()
    whole = {match[2] for key in keys if (match := _NAMED_WHOLE.fullmatch(key))}
    return "default" if "default" in whole else ""


def _without(key: str, adapter: str) -> str:
    for pattern in (_NAMED, _NAMED_PROJECTION, _NAMED_WHOLE):
        match = pattern.fullmatch(key)
        if match and match[2] == adapter:
            return f"{match[1]}{match[3] or ''}"
    return key
