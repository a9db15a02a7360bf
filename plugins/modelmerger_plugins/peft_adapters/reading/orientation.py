"""Whether a layer stores its matrix transposed, as Conv1D does.

Square matrices do not show it: others of the adapter tell.
"""

from collections.abc import Iterator, Mapping

from attrs import frozen

from modelmerger_plugins.peft_adapters.reading.modules import Keys, MisfitError, leaf
from modelmerger_plugins.peft_adapters.reading.pairing import Pairing, Shape


@frozen(eq=False)
class Orientation:
    """What the shapes of all layers of an adapter say together."""

    pair: Pairing
    """The adapter and its base."""
    modules: Mapping[str, Keys]
    """All modules of the adapter."""

    def swapped(self, module: str, shape: Shape, out: int, into: int) -> bool:
        """Whether a layer of `out` outputs and `into` inputs is stored as (into, out).

        `shape`: of its matrix in the base. A square one is stored as the last of its name is, or else as the others of
        the adapter, or else as its config says. Raises `MisfitError` for other shapes, and where the others disagree.
        """
        if out != into:
            if shape == (out, into):
                return False
            if shape == (into, out):
                return True
        if shape != (out, into):
            raise MisfitError(f"is for a matrix of shape {[out, into]}, and '{self.pair.base.name}' has {list(shape)}")
        votes = list(self._votes())
        alike = [swapped for name, swapped in votes if name == leaf(module)]
        everyone = set(alike[-1:]) or {swapped for _, swapped in votes}
        if len(everyone) > 1:
            raise MisfitError("is for a square matrix, and the adapter does not show whether it is stored transposed")
        return everyone.pop() if everyone else self.pair.config.flag("fan_in_fan_out")

    def _votes(self) -> Iterator[tuple[str, bool]]:
        """The names of layers whose matrices are not square, and how these are stored."""
        for module, keys in self.modules.items():
            info = self.pair.base.tensors.get(f"{module}.weight")
            if info is None or not {"lora_A", "lora_B"} <= keys.keys() or len(info.shape) != 2:
                continue
            out, into = self.pair.shape(keys["lora_B"])[0], self.pair.shape(keys["lora_A"])[-1]
            if out != into:
                yield leaf(module), info.shape == (into, out)
