"""Whether a layer stores its matrix transposed, as Conv1D does.

Square matrices do not show it: others of the adapter tell.
"""

from collections.abc import Iterator, Mapping

from attrs import field, frozen
from modelmerger import shown

from modelmerger_plugins.peft_adapters.reading.misfits import MisfitError
from modelmerger_plugins.peft_adapters.reading.modules import Keys, leaf
from modelmerger_plugins.peft_adapters.reading.pairing import Pairing


@frozen(eq=False)
class Orientation:
    """What the shapes of all layers of an adapter say together."""

    pair: Pairing
    """The adapter and its base."""
    modules: Mapping[str, Keys]
    """All modules of the adapter."""
    _seen: Mapping[str, frozenset[bool]] = field(init=False, repr=False)
    """Last part of the names of layers whose matrices are not square → how these are stored: transposed, or not."""

    @_seen.default
    def _by_leaf(self) -> Mapping[str, frozenset[bool]]:
        seen: dict[str, frozenset[bool]] = {}
        for name, swapped in self._votes():
            seen[name] = seen.get(name, frozenset()) | {swapped}
        return seen

    def swapped(self, module: str, tensor: str, out: int, into: int) -> bool:
        """Whether a layer of `out` outputs and `into` inputs is stored as (into, out).

        `tensor`: its matrix in the base. A square one is stored as those of its name are, or else as the others of
        the adapter, or else as its config says. Raises `MisfitError` for other shapes, and where those disagree.
        """
        shape = self.pair.shape_in_base(tensor)
        if out != into:
            if shape == (out, into):
                return False
            if shape == (into, out):
                return True
        if shape != (out, into):
            raise self.pair.other_shape(tensor, (out, into), f"is for a matrix of shape {[out, into]}")
        alike = self._seen.get(leaf(module))
        everyone = frozenset[bool]().union(*self._seen.values()) if alike is None else alike
        if len(everyone) > 1:
            others = "layers" if alike is None else f"layers named {shown(leaf(module), 40)}"
            raise MisfitError(
                f"is for a square matrix, and other {others} are stored both ways, transposed and not",
                advice="Fold it into its base with PEFT (merge_and_unload).",
            )
        return next(iter(everyone), self.pair.config.flag("fan_in_fan_out"))

    def _votes(self) -> Iterator[tuple[str, bool]]:
        """The names of layers whose matrices are not square, and how these are stored."""
        for module, keys in self.modules.items():
            info = self.pair.base.tensors.get(self.pair.in_base(f"{module}.weight"))
            if info is None or not {"lora_A", "lora_B"} <= keys.keys() or len(info.shape) != 2:
                continue
            a, b = self.pair.shape(keys["lora_A"]), self.pair.shape(keys["lora_B"])
            if len(a) == len(b) == 2 and a[1] != b[0] and set(info.shape) == {a[1], b[0]}:
                yield leaf(module), info.shape == (a[1], b[0])
