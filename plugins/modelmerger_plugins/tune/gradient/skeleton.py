"""A causal language model of transformers without weights: its own code runs, with tensors that are merged for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from modelmerger import ConfigError, layer_of
from torch import Tensor
from torch.func import functional_call
from torch.nn import Module
from torch.utils.checkpoint import checkpoint

from modelmerger_plugins.tune.gradient.combining import combined, combined_rows
from modelmerger_plugins.tune.gradient.factored import in_factors
from modelmerger_plugins.tune.gradient.head import Shaping, nats, shaping

if TYPE_CHECKING:
    from modelmerger_plugins.tune.gradient.sources import Source

Coefficients = Mapping[str, Tensor]
"""The coefficients of each merged tensor, as `Source` has them."""
_INSTEAD = "Set search.method to gap, tpe or cma, which need no gradient"


class _Streamed(Module):
    """A layer whose weights are made when it runs, and again when its gradient is wanted."""

    def __init__(self, layer: Module, sources: "Mapping[str, Source]") -> None:
        super().__init__()
        self.__dict__["_layer"] = layer  # no child: its weights have no numbers
        self.__dict__["_sources"] = sources
        self.__dict__["_in_factors"] = in_factors(layer, sources)
        self.coefficients: Coefficients = {}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_layer"], name)

    def forward(self, hidden: Tensor, *args: Any, **keywords: Any) -> Any:
        sources: Mapping[str, Source] = self.__dict__["_sources"]

        def run(hidden: Tensor, *coefficients: Tensor) -> Any:
            told = dict(zip(sources, coefficients, strict=True))
            for name, module in self.__dict__["_in_factors"].items():
                module.coefficients = told.pop(name)
            weights = {name: combined(own, sources[name]) for name, own in told.items()}
            return functional_call(self.__dict__["_layer"], weights, (hidden, *args), keywords)

        coefficients = [self.coefficients[source.name] for source in sources.values()]
        return checkpoint(run, hidden, *coefficients, use_reentrant=False, preserve_rng_state=False)


class _Embedding(Module):
    """An embedding of which only the rows of the tokens at hand are made."""

    def __init__(self, embedding: Module, source: "Source") -> None:
        super().__init__()
        embedding.padding_idx = None  # type: ignore[assignment]  # rows are counted anew
        self.__dict__["_embedding"] = embedding
        self.__dict__["_source"] = source
        self.coefficients: Coefficients = {}

    def forward(self, tokens: Tensor) -> Any:
        source: Source = self.__dict__["_source"]
        rows, numbered = torch.unique(tokens, return_inverse=True)
        weight = combined_rows(self.coefficients[source.name], source, rows)
        return functional_call(self.__dict__["_embedding"], {"weight": weight}, (numbered,))


class Skeleton:
    """The model's own code, and where each merged tensor goes in it."""

    def __init__(self, directory: Path, sources: "Mapping[str, Source]", dtype: torch.dtype) -> None:
        """directory: holds config.json. sources: by the names of the merged tensors. Raises `ConfigError`."""
        from accelerate import init_empty_weights  # type: ignore[import-untyped]
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(directory)
        config.use_cache = False
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()  # type: ignore[no-untyped-call]
        model.tie_weights()
        self._sources = _placed(model, sources)
        self._shaped: Shaping = shaping(config.get_text_config().to_dict())
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        if embedding is None or head is None:
            raise ConfigError(f"{type(model).__name__} has no head over a vocabulary. {_INSTEAD}.")
        names = {id(module): name for name, module in model.named_modules(remove_duplicate=False)}
        of_embedding, of_head = names[id(embedding)], names[id(head)]
        self._head = self._sources.get(f"{of_head}.weight") or self._sources[f"{of_embedding}.weight"]
        self._bias = self._sources.get(f"{of_head}.bias")
        self._streamed = _streamed(model, self._sources)
        self._streamed.append(_Embedding(embedding, self._sources[f"{of_embedding}.weight"]))
        model.set_input_embeddings(self._streamed[-1])
        self._base = model.base_model
        within = _prefix(names[id(self._base)])
        taken = {f"{of_embedding}.weight", f"{of_head}.weight", f"{of_head}.bias"}
        self._rest = {
            name.removeprefix(within): source
            for name, source in self._sources.items()
            if name not in taken and layer_of(name) is None and name.startswith(within)
        }
        self._device = self._head.device

    def nats(self, tokens: Tensor, attention: Tensor, scored: Tensor, coefficients: Coefficients) -> Tensor:
        """The nats of each token that is scored, given those before it: float32 at least, in the order of the rows.

        tokens: (texts, length) int64. attention: the same shape, 1 where there is a token. scored: bool, the same
        shape; no first token is.
        """
        for module in self._streamed:
            module.coefficients = coefficients
        tokens, attention, scored = (one.to(self._device) for one in (tokens, attention, scored))
        weights = {name: combined(coefficients[source.name], source) for name, source in self._rest.items()}
        arguments = {"input_ids": tokens, "attention_mask": attention, "use_cache": False}
        hidden = functional_call(self._base, weights, (), arguments).last_hidden_state
        bias = combined(coefficients[self._bias.name], self._bias) if self._bias is not None else None
        hidden, targets = hidden[:, :-1][scored[:, 1:]], tokens[:, 1:][scored[:, 1:]]
        return nats(hidden, coefficients[self._head.name], bias, self._head, targets, self._shaped)


def _placed(model: Module, sources: "Mapping[str, Source]") -> "dict[str, Source]":
    """The sources by the names of the parameters that they are. Raises `ConfigError` where these do not agree."""
    parameters, prefix = dict(model.named_parameters()), _prefix(getattr(model, "base_model_prefix", ""))
    placed = {}
    for name, source in sources.items():
        place = next((found for found in (name, prefix + name) if found in parameters), None)
        if place is not None and tuple(parameters[place].shape) == source.shape:
            placed[place] = source
    if missing := [name for name in parameters if name not in placed]:
        raise ConfigError(f"no tensor of the models is '{missing[0]}' of {type(model).__name__}. {_INSTEAD}.")
    return placed


def _streamed(model: Module, sources: "Mapping[str, Source]") -> list[Any]:
    """Puts a layer that is streamed in place of each layer, and returns them."""
    found: dict[str, dict[str, Source]] = {}
    for name, source in sources.items():
        layer = layer_of(name)
        if layer is not None:
            path = f"{layer[0]}.{layer[1]}"
            found.setdefault(path, {})[name.removeprefix(f"{path}.")] = source
    streamed: list[Any] = []
    for path, own in found.items():
        parent, _, number = path.rpartition(".")
        streamed.append(_Streamed(model.get_submodule(path), own))
        setattr(model.get_submodule(parent), number, streamed[-1])
    return streamed


def _prefix(name: str) -> str:
    return f"{name}." if name else ""


def lines_together(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Numbers of lines, in groups that are at most so many tokens with padding; lines of like length are together."""
    groups: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if groups and (len(groups[-1]) + 1) * lengths[number] <= most:
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups
