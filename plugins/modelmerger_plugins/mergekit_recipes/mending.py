"""What mergekit would not read in a recipe: found, named with its effect, and put right where that is asked for."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from attrs import field, frozen
from modelmerger import Problem, shown

from modelmerger_plugins.mergekit_recipes.methods import EVERY_PARAMETER, METHODS, NO_OPS, REQUIRED, Method

TOP = (
    *("merge_method", "models", "slices", "modules", "base_model", "parameters", "dtype", "out_dtype"),
    *("tokenizer_source", "tokenizer", "chat_template"),
)
"""Keys that are read at the top."""
ENTRY, SOURCE = ("model", "parameters"), ("model", "layer_range", "parameters")
SLICE, MODULE = ("sources", "base_model", "parameters"), ("models", "slices", "parameters")
"""Keys that are read in an entry of models, in a source of a slice, in a slice, and in a module."""
SYNONYMS = {
    **dict.fromkeys(("lamda", "lamba", "lambda_", "scaling_factor"), "lambda"),
    **dict.fromkeys(("normalise", "normalize_weights", "norm"), "normalize"),
    **dict.fromkeys(("topk", "top_k", "select_top_k", "topk_percent"), "select_topk"),
    **dict.fromkeys(("weights", "wieght", "ratio"), "weight"),
    **dict.fromkeys(("interpolation_factor", "slerp_t"), "t"),
}
"""Words that mean a parameter, and are not near it."""

UNREAD = " here is not read"
"""In what is said of something that has no effect where it stands."""


@frozen(eq=False)
class Mender:
    """Goes through a recipe, and says what is not read in it."""

    file: str
    method: Method
    name: str
    """mergekit's name of the method."""
    intent: bool
    """Whether what was meant is done."""
    top: dict[str, Any]
    """The recipe, which gets what belongs there."""
    notes: list[Problem] = field(factory=list)
    """Warnings and notes."""

    def mended(self) -> dict[str, Any]:
        """The recipe with nothing but what is read, and with what was meant if that is asked for."""
        self._keys(self.top, TOP, "", per_input=False)
        self._parameters(self.top, "parameters", per_input=False)
        self._inputs(self.top, "")
        modules = self.top.get("modules")
        for name, module in modules.items() if isinstance(modules, Mapping) else ():
            if isinstance(module, dict):
                where = f"modules.{name}"
                self._keys(module, MODULE, where, per_input=False)
                self._parameters(module, f"{where}.parameters", per_input=False)
                self._inputs(module, f"{where}.")
        return self.top

    def _inputs(self, holder: Mapping[str, Any], within: str) -> None:
        for i, model in enumerate(_mappings(holder.get("models"))):
            self._input(model, ENTRY, f"{within}models[{i}]")
        for i, part in enumerate(_mappings(holder.get("slices"))):
            where = f"{within}slices[{i}]"
            self._keys(part, SLICE, where, per_input=False)
            self._parameters(part, f"{where}.parameters", per_input=False)
            for j, source in enumerate(_mappings(part.get("sources"))):
                self._input(source, SOURCE, f"{where}.sources[{j}]")

    def _input(self, given: dict[str, Any], known: Iterable[str], where: str) -> None:
        self._keys(given, known, where, per_input=True)
        self._parameters(given, f"{where}.parameters", per_input=True)

    def _keys(self, given: dict[str, Any], known: Iterable[str], where: str, *, per_input: bool) -> None:
        """Keys of a place other than those of parameters."""
        for key in [key for key in given if key not in known]:
            place = f"{where}.{key}".lstrip(".")
            value = given.pop(key)
            meant: str | None = self._parameter(key)
            near = get_close_matches(str(key), list(known), 1, 0.75)
            if key in NO_OPS:
                self._note(place, "changes no result, in mergekit as here")
            elif meant is not None:
                at_top = per_input and meant in self.method.shared
                home = "parameters" if at_top or not where else f"{where}.parameters"
                said = f"It belongs under '{home}'" + (f", as '{meant}'" if meant != key else "")
                self._misplaced(place, key, self._used(meant), said)
                if self.intent:
                    holder = self.top if at_top else given
                    if not isinstance(holder.get("parameters"), dict):
                        holder["parameters"] = {}
                    holder["parameters"].setdefault(meant, value)
            elif key == "revision" and per_input and isinstance(given.get("model"), str):
                wanted = f"{given['model']}@{value}"
                self._misplaced(place, key, "mergekit used main", f"Write model: {shown(wanted, 60)}")
                given["model"] = wanted if self.intent else given["model"]
            elif near and near[0] not in given:
                self._misplaced(place, key, "mergekit ignored it", f"Did you mean '{near[0]}'?")
                if self.intent:
                    given[near[0]] = value
            else:
                at_home = bool(where) and key in TOP
                remedy = "It belongs at the top" if at_home else "Leave it out"
                self._misplaced(place, key, "mergekit ignored it", remedy)
                if at_home and self.intent:
                    self.top.setdefault(key, value)

    def _parameters(self, holder: dict[str, Any], where: str, *, per_input: bool) -> None:
        given = holder.get("parameters")
        if not isinstance(given, dict):
            return
        read = self.method.per_input if per_input else self.method.parameters
        for key in [key for key in given if key not in read]:
            place = f"{where}.{key}"
            value = given.pop(key)
            meant = self._parameter(key)
            if key in NO_OPS:
                self._note(place, "changes no result, in mergekit as here")
            elif key in self.method.no_effect:
                self._warn(place, f"has no effect in {self.name}, in mergekit as here. Leave it out")
            elif meant is not None and meant == key:  # a parameter of all inputs, under one of them
                self._misplaced(place, key, self._used(meant), "It belongs under 'parameters' at the top")
                self._give(self.top, meant, value)
            elif meant is not None:
                at_top = per_input and meant in self.method.shared
                self._misplaced(place, key, self._used(meant), f"Did you mean '{meant}'?")
                self._give(self.top if at_top else holder, meant, value)
            elif key in EVERY_PARAMETER:
                message = f"has no effect: {self.name} does not read '{key}', in mergekit as here. Leave it out"
                self._warn(place, message)
            elif key in TOP:
                self._misplaced(place, key, "mergekit ignored it", "It belongs at the top of the recipe")
                if self.intent:
                    self.top.setdefault(key, value)
            else:
                self._misplaced(place, key, "mergekit ignored it", "Leave it out")

    def _give(self, holder: dict[str, Any], name: str, value: Any) -> None:
        if self.intent:
            if not isinstance(holder.get("parameters"), dict):
                holder["parameters"] = {}
            holder["parameters"].setdefault(name, value)

    def _parameter(self, key: Any) -> str | None:
        """The parameter of the method that a word means; None for none."""
        known = self.method.parameters
        if key in known or not isinstance(key, str):
            return key if key in known else None
        if key in EVERY_PARAMETER or key in TOP or key in self.method.no_effect:
            return None
        if SYNONYMS.get(key.lower()) in known:
            return SYNONYMS[key.lower()]
        near = get_close_matches(key.lower(), [name for name in known if len(name) > 1], 1, 0.7)
        return near[0] if near else None

    def _used(self, name: str) -> str:
        """What mergekit did without it."""
        default = self.method.parameters[name].default
        given = (self.top.get("parameters") or {}) if isinstance(self.top.get("parameters"), Mapping | None) else {}
        if name in given:
            return "mergekit used the one under 'parameters'"
        if default is REQUIRED:
            return "mergekit found none"
        return (
            "mergekit ignored it"
            if default is None
            else f"mergekit used {str(default).replace('T', 't').replace('F', 'f')}"
        )

    def _misplaced(self, place: str, key: Any, effect: str, remedy: str) -> None:
        name = shown(str(key), 40)
        if self.intent and "Leave" not in remedy:
            self._note(place, f"'{name}' here is not read by mergekit, and is taken for what was meant. {remedy}")
        else:
            self._warn(place, f"'{name}'{UNREAD}; {effect}. {remedy}")

    def _warn(self, place: str, message: str) -> None:
        self.notes.append(Problem(message, f"{self.file}: {place}", severity="warning"))

    def _note(self, place: str, message: str) -> None:
        self.notes.append(Problem(message, f"{self.file}: {place}", severity="note"))


def _mappings(given: Any) -> list[dict[str, Any]]:
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def method_of(name: Any, file: str, problems: list[Problem]) -> str | None:
    """The method of a recipe, or the one that is meant, so that all else can be looked at; None for none."""
    if isinstance(name, str) and name in METHODS:
        return name
    plain = str(name).strip().lower().replace("-", "_").replace(" ", "_")
    near = [plain] if plain in METHODS else get_close_matches(plain, METHODS, 1, 0.6)
    advice = f"Did you mean '{near[0]}'?" if near else f"mergekit has {', '.join(METHODS)}."
    problems.append(Problem(f"mergekit has no method '{shown(str(name), 40)}'. {advice}", f"{file}: merge_method"))
    return plain if plain in METHODS else None
