"""A recipe as mergekit understands it: slices of sources, with the parameters of each level."""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from modelmerger import Problem, shown

from modelmerger_plugins.mergekit_recipes.methods import Method
from modelmerger_plugins.mergekit_recipes.parameters import Level, hidden, read_level
from modelmerger_plugins.mergekit_recipes.references import Reference, WrongReferenceError, read_reference

Range = tuple[int, int]


@frozen
class Source:
    """A model in a slice."""

    reference: Reference
    layers: Range | None
    """The first layer, and the one behind the last; None for all."""
    level: Level
    """Its own parameters."""
    where: str


@frozen
class Slice:
    """Layers that are merged with each other."""

    sources: Sequence[Source]
    base: Reference | None
    level: Level
    where: str

    @property
    def count(self) -> int | None:
        """How many layers it has; None for all of a model."""
        layers = self.sources[0].layers
        return None if layers is None else layers[1] - layers[0]


@frozen
class Recipe:
    """One document."""

    method: Method
    """What it does."""
    name: str
    """mergekit's name of the method."""
    slices: Sequence[Slice]
    """At least one."""
    sliced: bool
    """Whether it gives slices, and not models."""
    base: Reference | None
    outer: Sequence[Level]
    """Parameters of the module, if there is one, and of the whole."""
    given: Mapping[str, Any]
    """The document."""


class Reader:
    """Reads a mended document. What is wrong, `problems` gets; places begin with the file."""

    def __init__(self, file: str, problems: list[Problem], notes: list[Problem]) -> None:
        self._file, self._problems, self._notes = file, problems, notes

    def read(self, given: Mapping[str, Any], method: Method, name: str) -> Recipe | None:
        """The recipe; None where no slice can be read."""
        forms = [key for key in ("models", "slices", "modules") if given.get(key) is not None]
        if len(forms) != 1:
            said = f"has {' and '.join(forms)}" if forms else "has no models"
            self._error("", f"{said}. Give one of models, slices and modules")
            return None
        outer = [self._level(given.get("parameters"), "parameters")]
        holder, within = given, ""
        if forms == ["modules"]:
            modules = given["modules"]
            if (
                not isinstance(modules, Mapping)
                or list(modules) != ["default"]
                or not isinstance(modules["default"], Mapping)
            ):
                message = (
                    "names parts of a model (towers, encoder, decoder) other than 'default', which cannot be given "
                    "recipes of their own here. Give weights by patterns on tensor names, in a config of ours"
                )
                self._error("modules", message)
                return None
            holder, within = modules["default"], "modules.default."
            outer = [self._level(holder.get("parameters"), f"{within}parameters"), *outer]
        base = self._reference(given["base_model"], "base_model") if given.get("base_model") is not None else None
        slices = self._slices(holder, within)
        if not slices:
            return None
        return Recipe(method, name, slices, holder.get("slices") is not None, base, outer, given)

    def _slices(self, holder: Mapping[str, Any], within: str) -> list[Slice]:
        if holder.get("slices") is None:
            models = self._list(holder.get("models"), f"{within}models")
            read = [self._source(model, f"{within}models[{i}]", ranged=False) for i, model in enumerate(models)]
            whole = [source for source in read if source is not None]
            return [Slice(whole, None, Level("", {}), f"{within}models")] if whole else []
        slices = []
        for i, part in enumerate(self._list(holder["slices"], f"{within}slices")):
            where = f"{within}slices[{i}]"
            if not isinstance(part, Mapping):
                self._error(where, "must be a mapping with sources")
                continue
            listed = self._list(part.get("sources"), f"{where}.sources")
            found = [self._source(source, f"{where}.sources[{j}]", ranged=True) for j, source in enumerate(listed)]
            sources = [source for source in found if source is not None]
            base = part.get("base_model")
            own = self._reference(base, f"{where}.base_model") if base is not None else None
            level = self._level(part.get("parameters"), f"{where}.parameters")
            if sources and self._sound(sources, where):
                slices.append(Slice(sources, own, level, where))
        return slices

    def _sound(self, sources: Sequence[Source], where: str) -> bool:
        """Whether a slice has layers; says what is wrong or unusual with them."""
        lengths = [stop - start for start, stop in (source.layers or (0, 0) for source in sources)]
        if len(set(lengths)) > 1:
            self._error(where, f"has sources of {', '.join(map(str, lengths))} layers. Give ranges of equal length")
            return False
        if len({source.layers for source in sources}) > 1:
            first, other = sources[0], next(s for s in sources if s.layers != sources[0].layers)
            message = (
                f"merges layer {(first.layers or (0,))[0]} of {shown(first.reference.text, 40)} with layer "
                f"{(other.layers or (0,))[0]} of {shown(other.reference.text, 40)}, as mergekit does"
            )
            self._notes.append(Problem(message, f"{self._file}: {where}", severity="warning"))
        return lengths[0] > 0

    def _source(self, given: Any, where: str, *, ranged: bool) -> Source | None:
        if not isinstance(given, Mapping) or given.get("model") is None:
            self._error(where, "must be a mapping with a 'model'")
            return None
        reference = self._reference(given["model"], f"{where}.model")
        level = self._level(given.get("parameters"), f"{where}.parameters")
        layers = self._range(given.get("layer_range"), f"{where}.layer_range") if ranged else None
        if reference is None or (ranged and layers is None):
            return None
        return Source(reference, layers, level, where)

    def _range(self, given: Any, where: str) -> Range | None:
        try:
            if not isinstance(given, list) or len(given) != 2:
                raise ValueError("must be two numbers, the first layer and the one behind the last")
            if any(isinstance(item, bool | float) for item in given):
                raise ValueError("must be two whole numbers")
            first, last = (int(item) for item in given)
        except (ValueError, TypeError) as error:
            said = str(error) if "must" in str(error) else "must be two whole numbers"
            self._error(where, f"{said}, got {shown(repr(given), 40)}")
            return None
        if first < 0 or last < first:
            message = (
                f"[{first}, {last}] is no range of layers: mergekit would write a model with layers missing, without a "
                "word. Give the first layer and the one behind the last"
            )
            self._error(where, message)
            return None
        return first, last

    def _reference(self, given: Any, where: str) -> Reference | None:
        try:
            return read_reference(given)
        except WrongReferenceError as error:
            self._error(where, str(error))
            return None

    def _level(self, given: Any, where: str) -> Level:
        level = read_level(given, f"{self._file}: {where}", self._problems)
        self._notes += hidden(level)
        return level

    def _list(self, given: Any, where: str) -> list[Any]:
        if isinstance(given, list) and given:
            return given
        self._error(where, "must be a list with at least one entry")
        return []

    def _error(self, where: str, message: str) -> None:
        self._problems.append(Problem(message, f"{self._file}: {where}".rstrip(": ")))
