"""The typed face of the plugins of one run: the only code that touches pluggy's untyped `hook`."""

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy
from attrs import evolve, field, frozen

from modelmerger.engine.compiling import compiled
from modelmerger.engine.devices import is_out_of_memory
from modelmerger.hooks.registry import Provider
from modelmerger.hooks.validator import Validator
from modelmerger.inputs.loading import LoadContext
from modelmerger.planning.updates import Coefficients, MergedUpdates
from modelmerger.values.checkpoint import Checkpoint, Location, ModelReference
from modelmerger.values.errors import MergeError, NumericError, PluginError, Problem, UnmeasurableError
from modelmerger.values.findings import Better, Finding, ValidationReport
from modelmerger.values.labels import LabelScores
from modelmerger.values.layout import Layout, OutputTensor
from modelmerger.values.plan import MergePlan
from modelmerger.values.settings import Settings, ValidationSettings
from modelmerger.values.subject import Purpose, Subject, Texts
from modelmerger.values.text import shown
from modelmerger.values.traits import Operation, Traits
from modelmerger.values.units import SliceWork

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


@frozen(eq=False)
class Strategy:
    """The one strategy of a run: where it comes from, its traits, its options class (None when it has none).

    linear: whether it combines inputs by coefficients. merges_updates: whether it does so with the updates of adapters too.
    """

    provider: Provider
    traits: Traits
    options: type | None
    linear: bool
    merges_updates: bool
    fingerprint: str
    """Digest of the strategy's source file: another one, and what was staged before is not resumed."""


@frozen(eq=False)
class Hooks:
    """Calls hooks. Whatever a plugin raises becomes a `PluginError` that names it and its distribution; our own errors pass."""

    strategy: Strategy
    providers: tuple[Provider, ...]
    _manager: pluggy.PluginManager = field(repr=False)
    _by_plugin_name: Mapping[str, Provider] = field(repr=False)
    validators: Mapping[str, Validator] = field(factory=dict, repr=False)

    @property
    def metrics(self) -> dict[str, Better]:
        """What the validators can find → which way it is better."""
        return {name: way for validator in self.validators.values() for name, way in validator.metrics.items()}

    def declared_options(self) -> list[tuple[Provider, type]]:
        calls = self._each("declare_options")
        return [(self._by_plugin_name[name], cls) for name, cls in calls if cls is not None]

    def locate_model(self, reference: ModelReference) -> Location:
        """Where the model lies: where its path says, unless a plugin knows better."""
        found = self._call("locate_model", reference=reference)
        if found is not None and not isinstance(found, Location):
            raise self._wrong_answer("locate_model", found, "a Location or None")
        return found or Location(reference.path)

    def load_model(self, reference: ModelReference, context: LoadContext) -> Checkpoint | None:
        found = self._call("load_model", reference=reference, context=context)
        if found is not None and not isinstance(found, Checkpoint):
            raise self._wrong_answer("load_model", found, "a Checkpoint or None")
        return found

    def check_compatibility(self, checkpoints: Sequence[Checkpoint], settings: Settings) -> list[Problem]:
        calls = self._each("check_compatibility", checkpoints=checkpoints, settings=settings)
        for name, problems in calls:
            if not _is_list_of(Problem, problems or ()):
                raise self._wrong_answer("check_compatibility", problems, "Problems", name)
        return [problem for _, problems in calls for problem in problems or ()]

    def find_coefficients(
        self,
        weights: Sequence[float],
        operations: Sequence[Operation],
        options: Any,
        gram: Sequence[Sequence[float]] | None = None,
        shape: Sequence[int] = (2, 2),
        tensor_name: str = "",
    ) -> tuple[float, ...] | None:
        """One finite number an input, or None where the strategy waits for the Gram matrix."""
        found = self._call(
            "find_coefficients",
            tensor_name,
            weights=weights,
            operations=operations,
            options=options,
            gram=gram,
            shape=shape,
        )
        if found is None and gram is None and self.strategy.traits.gram:
            return None
        expected = len(weights) + self.strategy.traits.needs_base
        if not _is_list_of(Real, found) or len(found) != expected or not all(map(math.isfinite, found)):
            raise self._broken(
                "find_coefficients", f"gave {found!r} where {expected} finite numbers are due", tensor_name
            )
        return tuple(map(float, found))

    @property
    def measures(self) -> bool:
        return bool(self._manager.hook.measure_tensor.get_hookimpls())

    def measure_tensor(self, tensors: Sequence["torch.Tensor"], options: Any, tensor_name: str) -> "torch.Tensor":
        found: torch.Tensor = self._call("measure_tensor", tensor_name, tensors=tensors, options=options)
        if str(getattr(found, "dtype", "")) not in ("torch.float64", "torch.int64"):
            raise self._broken("measure_tensor", f"gave {_kind(found)} where float64 or int64 is due", tensor_name)
        if _shares_memory(found, tensors):
            raise self._broken("measure_tensor", "gave back one of its inputs; return a new tensor", tensor_name)
        return found

    def unsteady_measure(self, tensor_name: str) -> PluginError:
        """The error for a statistic whose shape or dtype changes from block to block."""
        return self._broken("measure_tensor", "gave another shape or dtype for another block", tensor_name)

    def merge_tensor(
        self,
        tensors: Sequence["torch.Tensor"],
        weights: Sequence[float],
        operations: Sequence[Operation],
        options: Any,
        measurement: "torch.Tensor | None",
        tensor_name: str,
    ) -> "torch.Tensor":
        """The merged slice: a tensor of the inputs' shape and dtype that shares no memory with them."""
        merged = self._call(
            "merge_tensor",
            tensor_name,
            tensors=tensors,
            weights=weights,
            operations=operations,
            options=options,
            measurement=measurement,
            tensor_name=tensor_name,
        )
        first = tensors[0]
        if not isinstance(merged, type(first)) or merged.shape != first.shape or merged.dtype != first.dtype:
            expected = f"a tensor, {_kind(first)}, is due"
            raise self._broken("merge_tensor", f"gave {_kind(merged)} where {expected}", tensor_name)
        if _shares_memory(merged, tensors):
            raise self._broken("merge_tensor", "gave back one of its inputs; return a new tensor", tensor_name)
        return merged

    def nonfinite(self, hook: str, tensor_name: str) -> PluginError:
        """The error for a strategy's hook that made a NaN or an infinity of finite inputs."""
        return self._broken(hook, "made a NaN or an infinity of finite inputs", tensor_name)

    def out_of_memory(self, error: Exception) -> PluginError:
        """The error for a strategy that uses up the memory of a device where the merge itself uses none."""
        return PluginError(
            f"{described(self.strategy.provider)} needs more memory of a device than there is: {shown(str(error))}"
        )

    def compile_strategy(self) -> None:
        """`merge_tensor` goes through torch.compile from now on; what it says is then that of the compiled function."""
        for implementation in self._manager.hook.merge_tensor.get_hookimpls():
            implementation.function = compiled(implementation.function)  # type: ignore[misc]  # this manager is ours alone

    def finishes(self, options: Any) -> bool:
        """Whether the strategy's `finish_tensor` is called in this merge."""
        wanted = self._call("wants_finish", options=options)
        if wanted is not None and not isinstance(wanted, bool):
            raise self._wrong_answer("wants_finish", wanted, "True or False")
        return wanted is not False and bool(self._manager.hook.finish_tensor.get_hookimpls())

    def finish_tensor(self, merged: "torch.Tensor", options: Any, tensor_name: str) -> Mapping[str, int]:
        found = self._call("finish_tensor", tensor_name, merged=merged, options=options) or {}
        if not isinstance(found, Mapping) or not _is_list_of(int, list(found.values())):
            raise self._broken("finish_tensor", f"gave {found!r} where whole numbers by name are due", tensor_name)
        return found

    def merge_updates(
        self, checkpoints: Sequence[Checkpoint], settings: Settings, coefficients: Coefficients
    ) -> MergedUpdates | None:
        found = self._call("merge_updates", checkpoints=checkpoints, settings=settings, coefficients=coefficients)
        if found is not None and not isinstance(found, MergedUpdates):
            raise self._wrong_answer("merge_updates", found, "MergedUpdates or None")
        return found

    def save_model(
        self, tensors: Sequence[OutputTensor], max_shard_size: int, use_safetensors: bool = True, stem: str = "model"
    ) -> Layout:
        layout = self._call(
            "save_model", tensors=tensors, max_shard_size=max_shard_size, use_safetensors=use_safetensors, stem=stem
        )
        if layout is None:
            raise PluginError(
                "no plugin lays out the output files (hook 'save_model'). Is the built-in one switched off?"
            )
        if not isinstance(layout, Layout):
            raise self._wrong_answer("save_model", layout, "a Layout or None")
        return layout

    def run_slices(self, work: SliceWork) -> None:
        if not self._call("run_slices", work=work):
            raise PluginError("no plugin executes the slices (hook 'run_slices'). Is the built-in one switched off?")

    def unfinished(self) -> PluginError:
        """The error for a `run_slices` that came back before every block was written."""
        suspects = self._suspects(self._manager.hook.run_slices)
        return PluginError(f"{suspects}: run_slices came back before all of the work was done.")

    def observers(self, settings: Settings) -> frozenset[str]:
        """The plugins whose `observe_slice` is called in this merge."""
        wants = self._each("wants_slices", settings=settings)
        for name, wanted in wants:
            if not isinstance(wanted, bool):
                raise self._wrong_answer("wants_slices", wanted, "True or False", name)
        declined = {name for name, wanted in wants if not wanted}
        able = {implementation.plugin_name for implementation in self._manager.hook.observe_slice.get_hookimpls()}
        return frozenset(able - declined)

    def observe_slice(
        self,
        observers: Container[str],
        tensors: Sequence["torch.Tensor"],
        merged: "torch.Tensor",
        tensor_name: str,
        inputs: Sequence[int],
        settings: Settings,
    ) -> Mapping[str, float]:
        arguments = {"tensors": tensors, "merged": merged, "tensor_name": tensor_name, "inputs": inputs}
        calls = self._each("observe_slice", tensor_name, observers, settings=settings, **arguments)
        for name, found in calls:
            numbers = list(found.values()) if isinstance(found, Mapping) else [found or 0]
            if not _is_list_of((int, float), numbers):
                raise self._wrong_answer("observe_slice", found, "numbers by name", name, tensor_name)
        return {f"{plugin}: {key}": value for plugin, found in calls for key, value in (found or {}).items()}

    def write_sidecars(
        self, plan: MergePlan, checkpoints: Sequence[Checkpoint], settings: Settings
    ) -> list[tuple[Provider, Mapping[str, bytes]]]:
        calls = self._each("write_sidecars", plan=plan, checkpoints=checkpoints, settings=settings)
        return [(self._by_plugin_name[name], self._contents("write_sidecars", found, name)) for name, found in calls]

    def provide_texts(self, purpose: Purpose) -> Texts:
        """Label → texts; raises `UnmeasurableError` where no plugin has any."""
        found = self._call("provide_texts", purpose=purpose)
        if found is None:
            raise UnmeasurableError(f"no plugin has texts for {purpose}, and the config gives none")
        sound = isinstance(found, Mapping) and _is_list_of(str, list(found))
        if not sound or not all(_is_list_of(str, group) for group in found.values()):
            raise self._wrong_answer("provide_texts", found, "lists of texts by label")
        texts: Texts = found
        return texts

    def score_labels(self, texts: Sequence[str]) -> LabelScores:
        """One row a text; raises `UnmeasurableError` where no plugin scores labels."""
        found = self._call("score_labels", texts=texts)
        if found is None:
            raise UnmeasurableError("no plugin scores labels")
        if not isinstance(found, LabelScores):
            raise self._wrong_answer("score_labels", found, "LabelScores or None")
        if len(found.rows) != len(texts) or any(len(r) != len(found.labels) for r in found.rows if r is not None):
            due = f"{len(texts)} rows of one number a label"
            raise self._wrong_answer("score_labels", f"{len(found.rows)} rows", due)
        return found

    def validate_model(self, validator: str, subject: Subject, settings: ValidationSettings) -> Iterator[Finding]:
        """What one validator finds, as it finds it. `UnmeasurableError` passes."""
        caller = self._manager.hook.validate_model
        plugin = f"validator {validator}"
        (implementation,) = [i for i in caller.get_hookimpls() if i.plugin_name == plugin]
        arguments = {"subject": subject, "settings": settings}
        call = partial(implementation.function, *(arguments[name] for name in implementation.argnames))
        answer = self._guarded(caller, call, "")
        if not isinstance(answer, Iterable):
            raise self._wrong_answer("validate_model", answer, "Findings", plugin)
        findings = iter(answer)
        while (finding := self._guarded(caller, partial(next, findings, None), "")) is not None:
            metrics = self.validators[validator].metrics
            if not isinstance(finding, Finding) or finding.metric not in metrics:
                raise self._wrong_answer("validate_model", finding, f"a Finding of {', '.join(metrics)}", plugin)
            if not isinstance(finding.value, Real | None):
                raise self._wrong_answer("validate_model", repr(finding.value), "a number or None", plugin)
            yield finding

    def write_companions(
        self, directory: Path, manifest: Mapping[str, Any], report: ValidationReport
    ) -> list[tuple[Provider, Mapping[str, bytes]]]:
        calls = self._each("write_companions", directory=directory, manifest=manifest, report=report)
        return [(self._by_plugin_name[name], self._contents("write_companions", found, name)) for name, found in calls]

    def _contents(self, hook: str, found: Any, plugin: str) -> Mapping[str, bytes]:
        if not isinstance(found or {}, Mapping) or not _is_list_of(str, list(found or ())):
            raise self._wrong_answer(hook, found, "contents by file name", plugin)
        return found or {}

    def _call(self, hook: str, tensor: str = "", **arguments: Any) -> Any:
        caller = getattr(self._manager.hook, hook)
        return self._guarded(caller, lambda: caller(**arguments), tensor)

    def _each(
        self, hook: str, tensor: str = "", among: Container[str] | None = None, **arguments: Any
    ) -> list[tuple[str, Any]]:
        """Every voice's answer with the name of its plugin; streams are read to their end inside the guard."""
        caller = getattr(self._manager.hook, hook)

        def collect() -> list[tuple[str, Any]]:
            answers = []
            for implementation in reversed(caller.get_hookimpls()):
                if among is not None and implementation.plugin_name not in among:
                    continue
                answer = implementation.function(*(arguments[name] for name in implementation.argnames))
                is_stream = isinstance(answer, Iterator)
                answers.append((implementation.plugin_name, list(answer) if is_stream else answer))
            return answers

        return self._guarded(caller, collect, tensor)

    def _guarded(self, caller: pluggy.HookCaller, call: Callable[[], T], tensor: str) -> T:
        try:
            return call()
        except NumericError as error:
            raise NumericError(*(p if p.tensor else evolve(p, tensor=tensor) for p in error.problems)) from error
        except (MergeError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error):  # of a device: the engine knows what to do
                raise
            culprit = self._culprit(caller, error)
            message = f"{culprit} raised {type(error).__name__} in {caller.name}: {error}"
            raise PluginError(Problem(message, tensor=tensor)) from error

    def _culprit(self, caller: pluggy.HookCaller, error: BaseException) -> str:
        """The plugin whose function stands in the traceback."""
        by_code = {getattr(i.function, "__code__", None): i.plugin_name for i in caller.get_hookimpls()}
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code in by_code:
                return described(self._by_plugin_name[by_code[trace.tb_frame.f_code]])
            trace = trace.tb_next
        return self._suspects(caller)

    def _suspects(self, caller: pluggy.HookCaller) -> str:
        """Who may have answered a hook: plugins of others, or else the built-in ones."""
        providers = [self._by_plugin_name[i.plugin_name] for i in caller.get_hookimpls()]
        return " or ".join(described(p) for p in [p for p in providers if not p.built_in] or providers)

    def _wrong_answer(self, hook: str, answer: Any, due: str, plugin: str = "", tensor: str = "") -> PluginError:
        caller = getattr(self._manager.hook, hook)
        who = described(self._by_plugin_name[plugin]) if plugin else self._suspects(caller)
        return PluginError(Problem(f"{who}: {hook} gave {shown(answer)} instead of {due}.", tensor=tensor))

    def _broken(self, hook: str, what: str, tensor: str) -> PluginError:
        return PluginError(Problem(f"{described(self.strategy.provider)}: {hook} {what}.", tensor=tensor))


def described(provider: Provider) -> str:
    return f"{provider.kind} '{provider.name}' from {provider.source}"


def _is_list_of(kind: Any, values: Any) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str) and all(isinstance(v, kind) for v in values)


def _shares_memory(made: "torch.Tensor", inputs: Sequence["torch.Tensor"]) -> bool:
    storage = made.untyped_storage().data_ptr()
    return made.numel() > 0 and any(storage == tensor.untyped_storage().data_ptr() for tensor in inputs)


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is None:
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} of shape {list(shape)}"
