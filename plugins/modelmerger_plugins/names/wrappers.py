"""What wrappers write into names: torch.compile, data parallelism, FSDP, checkpointing of activations, PEFT."""

from collections.abc import Iterable, Mapping

from attrs import frozen

ANYWHERE = {
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_fpw_module": "FSDP",
    "_checkpoint_wrapped_module": "checkpointing of activations",
    "_forward_module": "Lightning",
}
"""Parts of a name that only a wrapper writes, wherever they are → the wrapper."""
IN_FRONT = {
    "module": "DistributedDataParallel or DeepSpeed",
    "_module": "Opacus",
    "base_model.model": "PEFT",
}
"""Parts that a wrapper writes in front of all names of what it wraps → the wrapper."""
OF_LAYERS = "module"
"""The part of `IN_FRONT` that stands further behind where each layer is wrapped by itself."""


@frozen
class Unwrapped:
    """Names without what wrappers write into them."""

    names: Mapping[str, str]
    """Each name → the same without wrappers' parts; several may come to one."""
    counts: Mapping[str, int]
    """Wrapper's part ("_orig_mod") → how many names had it."""

    @property
    def collision(self) -> tuple[str, str] | None:
        """Two names that come to one; None if there are none."""
        seen: dict[str, str] = {}
        for name, plain in self.names.items():
            if (first := seen.setdefault(plain, name)) is not name:
                return first, name
        return None


def unwrapped(names: Iterable[str], *, layers: bool = False) -> Unwrapped:
    """Takes wrappers' parts off, however they are nested.

    A part of `IN_FRONT` could be a module's own. It goes where all names begin with it, or where one and the same
    module is named with it and without it. layers: the model has no module of its own that is called `OF_LAYERS`, which
    then also goes where it is all that another module holds.
    """
    plain = {name: name for name in names}
    counts: dict[str, int] = {}
    while True:
        before = dict(plain)
        for name, now in before.items():
            if (kept := without_anywhere(now, counts)) != now:
                plain[name] = kept
        if layers:
            _unwrap_layers(plain, counts)
        for part in IN_FRONT:
            if _is_wrapper(part, plain.values()):
                begun = [name for name, now in plain.items() if now.startswith(f"{part}.")]
                counts[part] = counts.get(part, 0) + len(begun)
                plain |= {name: plain[name].removeprefix(f"{part}.") for name in begun}
        if plain == before:
            return Unwrapped(plain, counts)


def writer(part: str) -> str:
    """Who writes a part into names."""
    return ANYWHERE.get(part) or IN_FRONT[part]


def without_anywhere(name: str, counts: dict[str, int] | None = None) -> str:
    """The name without parts of `ANYWHERE`. counts: how many names had a part, which is added to."""
    if "_m" not in name and "_f" not in name:  # most names
        return name
    parts = name.split(".")
    for part in ANYWHERE:
        if counts is not None and part in parts[:-1]:
            counts[part] = counts.get(part, 0) + 1
    return ".".join([part for part in parts[:-1] if part not in ANYWHERE] + parts[-1:])


def without_layers(name: str) -> str:
    """The name without the parts that wrappers of single layers write."""
    first, *rest, last = f".{name}".split(".")
    return ".".join([first, *(part for part in rest if part != OF_LAYERS), last]).removeprefix(".")


def _unwrap_layers(plain: dict[str, str], counts: dict[str, int]) -> None:
    wrapped = [name for name, now in plain.items() if f".{OF_LAYERS}." in now]
    if not wrapped:
        return
    held: dict[str, set[str]] = {}
    for now in plain.values():
        parts = now.split(".")
        for at in range(1, len(parts)):
            held.setdefault(".".join(parts[:at]), set()).add(parts[at])
    for name in wrapped:
        parts = plain[name].split(".")
        kept = [part for at, part in enumerate(parts) if at == 0 or held[".".join(parts[:at])] != {OF_LAYERS}]
        if len(kept) < len(parts):
            plain[name] = ".".join(kept)
            counts[OF_LAYERS] = counts.get(OF_LAYERS, 0) + 1


def _is_wrapper(part: str, names: Iterable[str]) -> bool:
    front = f"{part}."
    inside = {name.removeprefix(front).partition(".")[0] for name in names if name.startswith(front)}
    outside = {name.partition(".")[0] for name in names if not name.startswith(front)}
    return bool(inside) and (not outside or bool(inside & outside))
