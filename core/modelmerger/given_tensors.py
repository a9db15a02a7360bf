"""What is handed to a merge of tensors in memory: checked, and brought into the form of a config."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from modelmerger.config.models_in_memory import is_live
from modelmerger.config.plain_values import plain
from modelmerger.config.told_models import count_problems, told_entries
from modelmerger.output.sink import Sink
from modelmerger.output.sinks.given_sink import GivenSink
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import ConfigError, Problem
from modelmerger.values.layout import Layout
from modelmerger.values.settings import BASE, key_of_model

_OF_A_SINK = ("open_file", "write", "flush", "close_file", "records", "record")


def config_of(
    strategy: Any,
    models: Sequence[Any],
    base: Any,
    weights: Iterable[Any] | None,
    model_options: Iterable[Mapping[str, Any]] | None,
    options: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The config of such a merge. Raises `ConfigError` for what is no model, for a wrong number of weights, and for
    options that are none.
    """
    model_options, options = _told(model_options), _options(options, "options")
    named = {key_of_model(i): model for i, model in enumerate(models)} | ({BASE: base} if base is not None else {})
    problems = [Problem(_not_live(model), key) for key, model in named.items() if not is_live(model)]
    weights = _numbers(weights)
    if problems := [*problems, *count_problems(len(models), weights, model_options)]:
        raise ConfigError(*problems)
    entries = told_entries(((f"model_{i}", model) for i, model in enumerate(models)), weights, model_options)
    config = {"strategy": strategy, "models": entries, "options": options}
    return config if base is None else config | {BASE: base}


def listed(models: Any) -> list[Any]:
    """Models as a list. Raises `ConfigError` for what is one model, or none at all."""
    if is_live(models) or isinstance(models, str | Mapping) or not isinstance(models, Iterable):
        raise ConfigError(Problem(f"must be a list of models, got {type(models).__name__}", "models"))
    return list(models)


def _numbers(weights: Any) -> list[Any] | None:
    """Weights as plain data: tensors, arrays and their numbers as lists and floats. Raises `ConfigError`."""
    if weights is None:
        return None
    given = weights.tolist() if hasattr(weights, "tolist") else weights
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        got = "one number" if isinstance(given, int | float) else type(weights).__name__
        raise ConfigError(Problem(f"must be a list of weights, one a model, got {got}", "weights"))
    return [plain(weight) for weight in given]


def _told(given: Any) -> list[dict[str, Any]] | None:
    """Options of models as plain data. Raises `ConfigError`."""
    if given is None:
        return None
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        message = f"must be a list of mappings, one a model, got {type(given).__name__}"
        raise ConfigError(Problem(message, "model_options"))
    return [_options(told, f"model_options[{i}]") for i, told in enumerate(given)]


def _options(given: Any, where: str) -> dict[str, Any]:
    """Options as plain data. Raises `ConfigError`."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigError(Problem(f"must be a mapping, got {type(given).__name__}", where))
    return dict(plain(given))


def _not_live(model: Any) -> str:
    if isinstance(model, Mapping):
        if any(type(value).__name__ == "ndarray" for value in model.values()):
            return "holds arrays of numpy. Make tensors of them: torch.from_numpy(array)"
        return "holds no tensor. Is this the right object?" if model else "is empty. Give tensors by their names"
    return f"must be a mapping from names to tensors, a module or a checkpoint, got {type(model).__name__}"


def check_targets(out: Any, sink: Any, options: Any) -> None:
    """Raises `ConfigError` for arguments that cannot say where the result goes."""
    if out is not None and sink is not None:
        raise ConfigError(Problem("contradicts 'sink': both say where the result goes. Give one of them", "out"))
    if out is not None and (isinstance(out, Checkpoint) or not (isinstance(out, Mapping) or is_live(out))):
        message = f"must be a module, or a mapping from names to tensors, got {type(out).__name__}"
        raise ConfigError(Problem(message, "out"))
    if sink is not None and not callable(sink):
        raise ConfigError(
            Problem(f"must be a function that makes a Sink of a Layout, got {type(sink).__name__}", "sink")
        )
    if out is not None and isinstance(options, Mapping) and "torch_dtype" in options:
        message = "contradicts 'out', whose tensors have dtypes already. Leave it out"
        raise ConfigError(Problem(message, "options.torch_dtype"))


def made_sink(sink: Callable[[Layout], Sink], layout: Layout) -> Sink:
    """The sink of a layout. Raises `ConfigError` for one that lacks something of the protocol."""
    made = sink(layout)
    if missing := [name for name in _OF_A_SINK if not hasattr(made, name)]:
        message = f"gave {type(made).__name__}, which has no {', '.join(missing)}. It must make a Sink of a Layout"
        raise ConfigError(Problem(message, "sink"))
    return GivenSink(made)
