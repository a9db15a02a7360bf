"""A recipe in the words of our configs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen
from modelmerger import Problem, shown

from modelmerger_plugins.mergekit_recipes.by_tensor import Span, by_tensor, differs_outside
from modelmerger_plugins.mergekit_recipes.checks import problems_of_slice, unused_layers
from modelmerger_plugins.mergekit_recipes.methods import REQUIRED, Parameter
from modelmerger_plugins.mergekit_recipes.parameters import Entry, Level, as_count, as_number, as_truth, resolve
from modelmerger_plugins.mergekit_recipes.recipe import Recipe, Slice, Source
from modelmerger_plugins.mergekit_recipes.references import Reference
from modelmerger_plugins.mergekit_recipes.special import BY_CHANCE, Config, finished, slerp

MOST_SLICES = 1000
"""More than any document has: its seeds are apart from those of others."""


@frozen(eq=False)
class Translation:
    """Translates one document. What is wrong, or to be said, it collects."""

    file: str
    intent: bool
    """Whether what was meant is done where mergekit would do something else."""
    names: Mapping[str, str]
    """The documents that references can name → the name of the merge here."""
    number: int = 0
    """Which of the documents it is, the one that is written first."""
    problems: list[Problem] = field(factory=list)
    undefined: list[Problem] = field(factory=list)
    """Numbers with which the result has no value."""
    notes: list[Problem] = field(factory=list)

    def merge(self, recipe: Recipe) -> Config:
        """The merge that the recipe is; of several slices, one that stacks them."""
        single = len(recipe.slices) == 1
        self.notes.extend(unused_layers(recipe, self.file))
        parts = [self._slice(recipe, part, output) for part, output in _with_output(recipe.slices)]
        for number, part in enumerate(parts):
            self._with_seed(part, recipe.name, number)
        if single:
            config = parts[0]
            if recipe.base is not None and "base_model" not in config and self._donates(recipe, config):
                config["base_model"] = self._base(recipe.base, recipe.slices[0].sources[0].layers)
            return config
        config = {"strategy": "stack", "models": [self._layer(part) for part in parts]}
        if recipe.base is not None:
            config["base_model"] = self._base(recipe.base, None)
        return config

    def name_base(self, recipe: Recipe, config: Config) -> None:
        """Names the base of one slice, whose rows count for models that lack a token; of two models, the other's do."""
        single = len(recipe.slices) == 1 and len(config["models"]) > 2
        if recipe.base is not None and single and "base_model" not in config:
            config["base_model"] = self._base(recipe.base, recipe.slices[0].sources[0].layers)

    def _donates(self, recipe: Recipe, config: Config) -> bool:
        """Whether the base has to be named, to give config and tokenizer: it is not the first model."""
        return recipe.base is not None and config["models"][0] != self.entry(
            recipe.base, recipe.slices[0].sources[0].layers
        )

    def _with_seed(self, part: Config, method: str, number: int) -> None:
        """Gives a merge that drops elements at random a seed of its own, since its tensors are named as others are."""
        if method in BY_CHANCE and (seed := self.number * MOST_SLICES + number):
            part.setdefault("options", {})["seed"] = seed

    @staticmethod
    def _layer(part: Config) -> Config:
        """A slice as a model of the stack: its one model, if nothing is done to that."""
        if part["strategy"] == "passthrough" and not part.get("options"):
            return dict(part["models"][0])
        return {"merge": {**part, "options": {**part.get("options", {}), "missing_tensors": "donor"}}}

    def _slice(self, recipe: Recipe, part: Slice, output: int) -> Config:
        """What one slice is merged by. output: the number of its first layer in the output."""
        base = part.base or recipe.base
        before = len(self.problems) + len(self.undefined)
        found = list(problems_of_slice(recipe, part, base, self.file, intent=self.intent))
        self.problems.extend([problem for problem in found if problem.severity == "error"])
        self.notes.extend([problem for problem in found if problem.severity != "error"])
        if recipe.method.base == "none":
            base = None
        of_base = [source for source in part.sources if base is not None and source.reference == base]
        others = [source for source in part.sources if base is None or source.reference != base]
        if of_base and any(level.values for level in (of_base[0].level,)):
            message = f"the parameters of the base model have no effect in {recipe.name}, in mergekit as here"
            self.notes.append(Problem(message, f"{self.file}: {of_base[0].where}.parameters", severity="note"))
        layers = of_base[0].layers if of_base else part.sources[0].layers
        if not others:
            return {"strategy": "passthrough", "models": [self.entry(base or part.sources[0].reference, layers)]}
        span = Span(part.count, output)
        levels = [part.level, *recipe.outer]
        told = {name: self._shared(recipe, name, p, levels, span) for name, p in recipe.method.shared.items()}
        inputs = [self._input(recipe, source, levels, part) for source in others]
        config: Config = {"strategy": recipe.method.strategy, "models": inputs}
        if base is not None:
            config["base_model"] = self._base(base, layers)
        config["options"] = {
            recipe.method.shared[name].option: value
            for name, value in told.items()
            if recipe.method.shared[name].option and value is not None
        }
        _without_equal_names(inputs)
        self._warn_of_sums(recipe, config, part)
        if len(self.problems) + len(self.undefined) > before:
            return config
        if recipe.name == "slerp" and base is not None:
            return slerp(config, self.entry(base, layers))
        return finished(recipe.name, config, told, self.file, self.notes)

    def entry(self, reference: Reference, layers: tuple[int, int] | None) -> Config:
        """A model in a list of models."""
        named = self.names.get(reference.model)
        if reference.adapter:
            if named is not None:
                message = f"'{shown(reference.text, 60)}' puts an adapter on a merge, which is not available"
                self.problems.append(Problem(message, self.file))
            folded: Config = {"strategy": "passthrough", "models": [{"path": reference.adapter}]}
            found: Config = {"merge": {**folded, "peft_config": {"base_model_path": reference.model}}}
            found["name"] = reference.name
        else:
            found = {"path": named or reference.model}
        return found | ({"layers": list(layers)} if layers is not None else {})

    def _base(self, reference: Reference, layers: tuple[int, int] | None) -> Any:
        entry = self.entry(reference, layers)
        if set(entry) == {"path"}:
            return entry["path"]
        if set(entry) <= {"merge", "name"}:
            return {"merge": entry["merge"]}
        return {"merge": {"strategy": "passthrough", "models": [entry]}}

    def _input(self, recipe: Recipe, source: Source, levels: Sequence[Level], part: Slice) -> Config:
        entry = self.entry(source.reference, source.layers)
        first = source.layers[0] if source.layers is not None else 0
        for name, parameter in recipe.method.per_input.items():
            where = f"{self.file}: {source.where}"
            value = self._value(recipe, name, parameter, [source.level, *levels], Span(part.count, first), where)
            if value is not None:
                entry[parameter.option] = value
        return entry

    def _shared(self, recipe: Recipe, name: str, parameter: Parameter, levels: Sequence[Level], span: Span) -> Any:
        return self._value(recipe, name, parameter, levels, span, f"{self.file}: parameters")

    def _value(
        self, recipe: Recipe, name: str, parameter: Parameter, levels: Sequence[Level], span: Span, where: str
    ) -> Any:
        """What the parameter comes to, in our form; None where nothing is given and mergekit does nothing then."""
        entries = resolve(name, levels)
        if any(name in level.wrong for level in levels):
            return None
        if not entries and parameter.default is REQUIRED:
            message = f"'{name}' is missing, and {recipe.name} needs it. Give it under parameters"
            self.problems.append(Problem(message, where))
            return None
        default = None if parameter.default is REQUIRED else parameter.default
        try:
            value = self._read(parameter, entries, default, span)
        except ValueError as error:
            grave = "finite" in str(error)
            (self.undefined if grave else self.problems).append(Problem(f"{error}", entries[0].where))
            return None
        if parameter.varies:
            self._warn_of_gradients(entries, recipe)
        if not parameter.option and value != parameter.default:
            message = f"{name}: {str(value).lower()} is not available here. Leave it out, for {str(default).lower()}"
            self.problems.append(Problem(message, entries[0].where if entries else where))
        return value

    def _read(self, parameter: Parameter, entries: Sequence[Entry], default: Any, span: Span) -> Any:
        if parameter.varies:
            return by_tensor(
                entries, 1.0 if default is None and entries and parameter.option == "scale" else default, span
            )
        if not entries:
            return default
        entry = entries[0]
        if entry.filter or isinstance(entry.value, tuple):
            raise ValueError("varies by tensor, which this parameter cannot here. Give one value")
        return {"truth": as_truth, "count": as_count, "number": as_number}[parameter.kind](entry.value)

    def _warn_of_gradients(self, entries: Sequence[Entry], recipe: Recipe) -> None:
        single = len(recipe.slices) == 1
        count = len(recipe.slices[0].sources)
        per_input = recipe.method.per_input
        for entry in entries:
            if not isinstance(entry.value, tuple):
                continue
            outer = any(entry in level.values.get(name, ()) for level in recipe.outer for name in per_input)
            if single and outer and len(entry.value) == count > 1:
                message = (
                    f"has one value for each of {count} models, but is a gradient over the layers, as in mergekit. "
                    "Give each model its own under its parameters, if that is meant"
                )
                self.notes.append(Problem(message, entry.where, severity="warning"))
            elif differs_outside(entry):
                message = (
                    f"this gradient gives its first value, {entry.value[0]}, to embedding, final norm and LM head, "
                    f"as in mergekit, and not the last, {entry.value[-1]}"
                )
                self.notes.append(Problem(message, entry.where, severity="warning"))

    def _warn_of_sums(self, recipe: Recipe, config: Config, part: Slice) -> None:
        """Weights by which nothing can be divided, and negative ones that mergekit would turn round."""
        weights = [model.get("weight") for model in config["models"]]
        normalised = config["options"].get("normalize_weights")
        where = f"{self.file}: {part.where}"
        names = ", ".join(shown(source.reference.text, 40) for source in part.sources[:5])
        plain = all(isinstance(weight, int | float) for weight in weights)
        if recipe.name in ("linear", "multislerp") and normalised and plain and abs(math.fsum(weights)) <= 1e-9:
            message = f"the weights {weights} of {names} add up to 0, by which nothing can be divided. Change one"
            self.undefined.append(Problem(message, where))
        negative = any(number < 0 for weight in weights for number in _numbers(weight))
        if recipe.method.base == "required" and normalised and negative:
            said = (
                "mergekit divides by the sum of the weights, and so adds what a negative one shall take away; here it "
                "is taken away"
            )
            if self.intent:
                self.notes.append(Problem(said, where, severity="warning"))
            else:
                advice = "Give --read intent=true for that, or normalize: false"
                message = f"has a negative weight, and normalize: {said}. {advice}"
                self.problems.append(Problem(message, where))


def _with_output(slices: Sequence[Slice]) -> Iterator[tuple[Slice, int]]:
    """The slices, each with the number of its first layer in the output."""
    output = 0
    for part in slices:
        yield part, output
        output += part.count or 0


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, int | float):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _numbers(item)


def _without_equal_names(models: Sequence[Config]) -> None:
    """Takes away names that two models have."""
    names = [model.get("name") for model in models]
    for model, name in zip(models, names, strict=True):
        if names.count(name) > 1:
            model.pop("name", None)
