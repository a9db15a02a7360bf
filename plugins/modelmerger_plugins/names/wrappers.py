"""What wrappers write into names: torch.compile, data parallelism, FSDP, checkpointing of activations, PEFT."""

from collections.abc import Callable, Collection, Iterable, Mapping

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
OF_LAYERS = ("module", "_module")
"""Parts of `IN_FRONT` that stand further behind where each layer is wrapped by itself."""

Fronts = Callable[[Iterable[str]], Iterable[str]]
"""Names → the parts in front of all of them that no module of the model is called."""


def _no_fronts(_: Iterable[str]) -> Iterable[str]:
    return ()


@frozen(eq=False, repr=False)
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


def unwrapped(names: Iterable[str], *, layers: Collection[str] = (), fronts: Fronts = _no_fronts) -> Unwrapped:
    """Takes wrappers' parts off, however they are nested.

    A part of `IN_FRONT` could be a module's own. It goes where all names begin with it, or where one and the same
    module is named with it and without it. layers: those of `OF_LAYERS` that no module of the model is called; they go
    where they are all that another module holds, too. fronts: which parts go from the front of these names, besides.
    """
    plain = {name: name for name in names}
    counts: dict[str, int] = {}
    while True:
        before = dict(plain)
        for name, now in before.items():
            if (kept := without_anywhere(now, counts)) != now:
                plain[name] = kept
        if layers:
            _unwrap_layers(plain, counts, layers)
        for part in (*IN_FRONT, *fronts(plain.values())):
            if _is_wrapper(part, plain.values()):
                begun = [name for name, now in plain.items() if now.startswith(f"{part}.")]
                counts[part] = counts.get(part, 0) + len(begun)
                plain |= {name: plain[name].removeprefix(f"{part}.") for name in begun}
        if plain == before:
            return Unwrapped(plain, counts)


def writer(part: str) -> str:
    """Who writes a part into names."""
    return ANYWHERE.get(part) or IN_FRONT.get(part) or "a module around the model"


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
    return ".".join([first, *(part for part in rest if part not in OF_LAYERS), last]).removeprefix(".")


def _unwrap_layers(plain: dict[str, str], counts: dict[str, int], layers: Collection[str]) -> None:
    wrapped = [name for name, now in plain.items() if not {*layers}.isdisjoint(now.split(".")[1:-1])]
    if not wrapped:
        return
    held: dict[str, set[str]] = {}
    for now in plain.values():
        parts = now.split(".")
        for at in range(1, len(parts)):
            held.setdefault(".".join(parts[:at]), set()).add(parts[at])
    for name in wrapped:
        parts = plain[name].split(".")
        gone = {at for at, part in enumerate(parts) if at and part in layers and held[".".join(parts[:at])] == {part}}
        plain[name] = ".".join(part for at, part in enumerate(parts) if at not in gone)
        for part in {parts[at] for at in gone}:
            counts[part] = counts.get(part, 0) + 1


def _is_wrapper(part: str, names: Iterable[str]) -> bool:
    front = f"{part}."
    inside = {name.removeprefix(front).partition(".")[0] for name in names if name.startswith(front)}
    outside = {name.partition(".")[0] for name in names if not name.startswith(front)}
    return bool(inside) and (not outside or bool(inside & outside))
