"""The one strategy of a run: its traits, and its hooks with typed arguments and checked answers."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, get_args

from attrs import evolve, frozen

from modelmerger.hooks.answers import is_dense, is_list_of, is_pair, kind_of, not_a_tensor, shares_memory, versions
from modelmerger.hooks.arguments.of_strategies import Measured, SliceInputs
from modelmerger.hooks.calls import Calls
from modelmerger.hooks.plugins import Plugin
from modelmerger.values.errors import ConfigError, PluginError, Problem
from modelmerger.values.text import shown
from modelmerger.values.traits import Traits, View

if TYPE_CHECKING:
    import torch

    from modelmerger.values.strategies.terms import Terms

_CHANGED = "changed its inputs; make new tensors"


@frozen(eq=False, repr=False)
class Strategy:
    """The strategy of a run, with its hooks."""

    plugin: Plugin
    """The strategy as its module declares it."""
    traits: Traits
    """What its module says of it."""
    fingerprint: str
    """A digest of its source: a merge that was begun with another one is not resumed."""
    calls: Calls
    """The plugins of the run."""

    @property
    def name(self) -> str:
        """Its name, as in the config."""
        return self.plugin.provider.name

    @property
    def linear(self) -> bool:
        """Whether it combines inputs by coefficients for every tensor."""
        return not {"merge_tensor", "compose_model"} & self.plugin.hooks

    @property
    def composes(self) -> bool:
        """Whether it composes the output, and neither combines nor merges tensors."""
        return "compose_model" in self.plugin.hooks

    def view_of(self, tensor_name: str, shape: Sequence[int], options: Any) -> View:
        """How it sees a tensor. shape: of the tensor. options: its own, for that tensor."""
        if "choose_view" in self.plugin.hooks:
            found = self.calls.ask_first(
                "choose_view", tensor_name, tensor_name=tensor_name, shape=shape, options=options
            )
            if found not in get_args(View):
                due = " or ".join(get_args(View))
                raise self._broken("choose_view", f"gave {found!r} where {due} is due", tensor_name)
            needed = "find_coefficients" if found == "linear" else "merge_tensor"
            if needed not in self.plugin.hooks:
                raise self._broken("choose_view", f"gave {found!r}, which needs the hook {needed}", tensor_name)
            view: View = found
            return view
        return "linear" if self.linear else self.traits.granularity

    @property
    def merges_updates(self) -> bool:
        """Whether it can merge the updates of adapters: by coefficients, or in the space that they share."""
        able = self.linear or "merge_cores" in self.plugin.hooks
        return able and ("finish_tensor" not in self.plugin.hooks or self.traits.updates)

    def rounds_for(self, given: Measured) -> int:
        """How often it measures a tensor before it merges it, at most.

        Raises `ConfigError`, which names the tensor, for options that the strategy refuses.
        """
        if "measure_tensor" not in self.plugin.hooks:
            return 0
        name = given.tensor_name
        try:
            found = self.calls.ask_first("count_rounds", name, **given.arguments())
        except ConfigError as error:
            raise ConfigError(*(p if p.tensor else evolve(p, tensor=name) for p in error.problems)) from error
        if found is not None and (type(found) is not int or not 0 <= found <= self.traits.rounds):
            due = f"a whole number from 0 to {self.traits.rounds}, the rounds of its traits,"
            raise self._broken("count_rounds", f"gave {shown(repr(found))} where {due} is due", name)
        return self.traits.rounds if found is None else found

    def find_coefficients(
        self,
        weights: Sequence[float],
        model_options: Sequence[Any],
        options: Any,
        gram: Sequence[Sequence[float]] | None = None,
        shape: Sequence[int] = (2, 2),
        tensor_name: str = "",
    ) -> tuple[float, ...] | None:
        """One finite number an input, that of the base last; None where the strategy needs the Gram matrix.

        gram: of the inputs, one row an input; None if it is not known yet. shape: of the tensor.
        """
        updates = self.traits.inputs == "updates"
        found = self.calls.ask_first(
            "find_coefficients",
            tensor_name,
            weights=weights,
            model_options=model_options,
            options=options,
            gram=gram,
            shape=shape,
        )
        if found is None and gram is None and self.traits.gram:
            return None
        expected = len(weights) + (self.traits.needs_base and not updates)
        if not is_list_of(Real, found) or len(found) != expected or not all(map(math.isfinite, found)):
            raise self._broken(
                "find_coefficients", f"gave {found!r} where {expected} finite numbers are due", tensor_name
            )
        numbers = tuple(map(float, found))
        return (*numbers, 1.0 - sum(numbers)) if updates else numbers

    def measure_tensor(self, given: "SliceInputs", measurements: Sequence["torch.Tensor"]) -> "torch.Tensor | None":
        """An additive statistic of a block: float64 or int64, in memory of its own; None where there is none to take.

        measurements: the sums of the rounds before.
        """
        tensors, tensor_name = given.tensors, given.tensor_name
        asked = {"round": len(measurements), "measurements": measurements, **given.arguments()}
        before = versions(tensors)
        found: torch.Tensor | None = self.calls.ask_first("measure_tensor", tensor_name, **asked)
        if versions(tensors) != before:
            raise self._broken("measure_tensor", _CHANGED, tensor_name)
        if found is None:
            return None
        found = self._statistic("measure_tensor", found, tensor_name)
        if shares_memory(found, tensors):
            raise self._broken("measure_tensor", "gave back one of its inputs; return a new tensor", tensor_name)
        return found

    def choose_ranges(
        self, given: Measured, number: int, measurements: Sequence["torch.Tensor"], row: int = 1
    ) -> Sequence[tuple[int, int]] | None:
        """The elements that round `number` measures, as ranges in order; None for all of them.

        measurements: the sums of the rounds before; none while the merge is planned. row: what the ends of ranges must
        be multiples of.
        """
        asked = {"round": number, "measurements": measurements, **given.arguments()}
        found = self.calls.ask_first("choose_ranges", given.tensor_name, **asked)
        if found is None:
            return None
        ranges, end, elements = [], 0, math.prod(given.shape)
        for pair in found if isinstance(found, Sequence) else [found]:
            if not is_pair(pair) or not end <= pair[0] < pair[1] <= elements or pair[0] % row or pair[1] % row:
                rows = f", in whole rows of {row}" if row > 1 else ""
                due = f"ranges from first to behind last within {elements} elements, in order{rows}, are due"
                raise self._broken("choose_ranges", f"gave {shown(repr(pair))} where {due}", given.tensor_name)
            ranges.append((pair[0], pair[1]))
            end = pair[1]
        return ranges

    @property
    def joins(self) -> bool:
        """Whether it may make one statistic of several otherwise than by adding them up."""
        return "join_measurements" in self.plugin.hooks

    def join_measurements(
        self, given: Measured, parts: Sequence["torch.Tensor"], measurements: Sequence["torch.Tensor"]
    ) -> "torch.Tensor | None":
        """One statistic of several: float64 or int64; None where they are added up.

        measurements: the sums of the rounds before.
        """
        asked = {"parts": parts, "round": len(measurements), "measurements": measurements, **given.arguments()}
        found: torch.Tensor | None = self.calls.ask_first("join_measurements", given.tensor_name, **asked)
        return None if found is None else self._statistic("join_measurements", found, given.tensor_name)

    def _statistic(self, hook: str, found: "torch.Tensor", tensor_name: str) -> "torch.Tensor":
        if str(getattr(found, "dtype", "")) not in ("torch.float64", "torch.int64") or not is_dense(found):
            what = f"gave {kind_of(found)} where float64 or int64 is due{not_a_tensor(found)}"
            raise self._broken(hook, what, tensor_name)
        return found.detach()

    def unsteady_measure_error(self, tensor_name: str, what: str) -> PluginError:
        """The error for a statistic whose parts cannot be added up. what: why."""
        return self._broken("measure_tensor", what, tensor_name)

    def merge_tensor(self, given: "SliceInputs", measurements: Sequence["torch.Tensor"]) -> "torch.Tensor":
        """The merged slice: a tensor of the inputs' shape and dtype that shares no memory with them."""
        before = versions(given.tensors)
        asked = {"measurements": measurements} | given.arguments()
        merged = self.calls.ask_first("merge_tensor", given.tensor_name, **asked)
        return self._made("merge_tensor", merged, given.tensors, before, given.tensor_name)

    @property
    def splits(self) -> bool:
        """Whether it can say what terms a merged tensor is a sum of."""
        return "split_tensor" in self.plugin.hooks

    def split_tensor(self, given: "SliceInputs", measurements: Sequence["torch.Tensor"]) -> "Terms | None":
        """The terms of a merged tensor; None where it is no sum of any. Their `weigh` checks its answers too."""
        before = versions(given.tensors)
        asked = {"measurements": measurements} | given.arguments()
        found = self.calls.ask_first("split_tensor", given.tensor_name, **asked)
        if found is None:
            return None
        if versions(given.tensors) != before:
            raise self._broken("split_tensor", _CHANGED, given.tensor_name)
        from modelmerger.hooks.answered.terms import checked_terms

        guard = partial(self.calls.guard, "split_tensor", tensor=given.tensor_name)
        broken = partial(self._broken, "split_tensor", tensor=given.tensor_name)
        return checked_terms(found, given.tensors, guard, broken)

    def merge_cores(
        self,
        cores: Sequence["torch.Tensor"],
        noise: Sequence[float],
        weights: Sequence[float],
        model_options: Sequence[Any],
        options: Any,
        tensor_name: str,
        shape: Sequence[int],
    ) -> "torch.Tensor":
        """The merged core: finite, float64, of the shape of the others. The arguments are those of the hook."""
        before = versions(cores)
        found = self.calls.ask_first(
            "merge_cores",
            tensor_name,
            cores=cores,
            noise=noise,
            weights=weights,
            model_options=model_options,
            options=options,
            tensor_name=tensor_name,
            shape=shape,
        )
        merged = self._made("merge_cores", found, cores, before, tensor_name)
        if not merged.isfinite().all():
            raise self.nonfinite_error("merge_cores", tensor_name)
        return merged

    def _made(
        self, hook: str, made: Any, inputs: Sequence["torch.Tensor"], before: Sequence[int], tensor_name: str
    ) -> "torch.Tensor":
        """What a hook made of tensors: a tensor of their shape and dtype. before: the versions of these tensors."""
        first = inputs[0]
        if (
            not isinstance(made, type(first))
            or not is_dense(made)
            or made.shape != first.shape
            or made.dtype != first.dtype
        ):
            due = f"a tensor, {kind_of(first)}, is due"
            raise self._broken(hook, f"gave {kind_of(made)} where {due}{not_a_tensor(made)}", tensor_name)
        if shares_memory(made, inputs):
            raise self._broken(hook, "gave back one of its inputs; return a new tensor", tensor_name)
        if versions(inputs) != before:
            raise self._broken(hook, _CHANGED, tensor_name)
        return made.detach()

    def compile_merge(self, compiled: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Replaces the strategy's `merge_tensor` by what `compiled` makes of it."""
        for implementation in self.calls.manager.hook.merge_tensor.get_hookimpls():
            # this manager is ours alone
            implementation.function = compiled(implementation.function)  # type: ignore[misc]  # final in pluggy's types

    def finishes(self, options: Any, updates: bool = False) -> bool:
        """Whether its `finish_tensor` is called in this merge. updates: whether the updates of adapters are merged."""
        wanted = self.calls.ask_first("wants_finish", options=options, updates=updates)
        if wanted is not None and not isinstance(wanted, bool):
            raise self.calls.wrong_answer("wants_finish", wanted, "True or False")
        return wanted is not False and "finish_tensor" in self.plugin.hooks and not updates

    def finish_tensor(self, merged: "torch.Tensor", options: Any, tensor_name: str) -> Mapping[str, int]:
        """Changes the merged slice in place. Returns what it counted, by name."""
        found = self.calls.ask_first("finish_tensor", tensor_name, merged=merged, options=options) or {}
        if not isinstance(found, Mapping) or not is_list_of(int, list(found.values())):
            raise self._broken("finish_tensor", f"gave {found!r} where whole numbers by name are due", tensor_name)
        return found

    def silent_error(self) -> PluginError:
        """The error for a strategy that speaks by composition alone and composes nothing."""
        return self._broken("compose_model", "gave None, and the strategy has no other way to merge", "")

    def nonfinite_error(self, hook: str, tensor_name: str) -> PluginError:
        """The error for a hook that made a NaN or an infinity of finite inputs."""
        return self._broken(hook, "made a NaN or an infinity of finite inputs", tensor_name)

    def out_of_memory_error(self, error: Exception) -> PluginError:
        """The error for a strategy that uses up the memory of a device that the merge itself does not use."""
        return PluginError(f"{self.plugin.provider} needs more memory of a device than there is: {shown(str(error))}")

    def _broken(self, hook: str, what: str, tensor: str) -> PluginError:
        return PluginError(Problem(f"{self.plugin.provider}: {hook} {what}.", tensor=tensor))
