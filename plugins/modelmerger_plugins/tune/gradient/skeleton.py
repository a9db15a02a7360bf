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

from modelmerger_plugins.tune.gradient.combining import combined_rows
from modelmerger_plugins.tune.gradient.factored import in_factors
from modelmerger_plugins.tune.gradient.head import Shaping, nats, shaping
from modelmerger_plugins.tune.gradient.placing import INSTEAD, Placed, placed, prefix_of

if TYPE_CHECKING:
    from modelmerger_plugins.tune.gradient.sources import Source

Coefficients = Mapping[str, Tensor]
"""The coefficients of each merged tensor, as `Source` has them."""


class _Streamed(Module):
    """A layer whose weights are made when it runs, and again when its gradient is wanted."""

    def __init__(self, layer: Module, placed: Mapping[str, Placed]) -> None:
        super().__init__()
        self.__dict__["_layer"] = layer  # no child: its weights have no numbers
        self.__dict__["_placed"] = placed
        alone = {name: one.only for name, one in placed.items() if one.is_alone}
        self.__dict__["_in_factors"] = in_factors(layer, alone)
        self.coefficients: Coefficients = {}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_layer"], name)

    def forward(self, hidden: Tensor, *args: Any, **keywords: Any) -> Any:
        placed: Mapping[str, Placed] = self.__dict__["_placed"]

        def run(hidden: Tensor, *coefficients: Tensor) -> Any:
            waiting, weights = iter(coefficients), {}
            for name, one in placed.items():
                own = [next(waiting) for _ in one.sources]
                if name in self.__dict__["_in_factors"]:
                    self.__dict__["_in_factors"][name].coefficients = own[0]
                else:
                    weights[name] = one.weight(own)
            return functional_call(self.__dict__["_layer"], weights, (hidden, *args), keywords)

        coefficients = [self.coefficients[source.name] for one in placed.values() for source in one.sources]
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
        config._experts_implementation = "eager"  # noqa: SLF001 (others of its ways lack float64)
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()  # type: ignore[no-untyped-call]
        model.tie_weights()
        self._placed = placed(model, sources)
        self._shaped: Shaping = shaping(config.get_text_config().to_dict())
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        if embedding is None or head is None:
            raise ConfigError(f"{type(model).__name__} has no head over a vocabulary. {INSTEAD}.")
        names = {id(module): name for name, module in model.named_modules(remove_duplicate=False)}
        of_embedding, of_head = names[id(embedding)], names[id(head)]
        head_at = next(name for name in (f"{of_head}.weight", f"{of_embedding}.weight") if name in self._placed)
        self._head, self._bias = self._placed[head_at].only, self._placed.get(f"{of_head}.bias")
        self._streamed = _streamed(model, self._placed)
        self._streamed.append(_Embedding(embedding, self._placed[f"{of_embedding}.weight"].only))
        model.set_input_embeddings(self._streamed[-1])
        self._base = model.base_model
        within = prefix_of(names[id(self._base)])
        taken = {f"{of_embedding}.weight", f"{of_head}.weight", f"{of_head}.bias"}
        self._rest = {
            name.removeprefix(within): one
            for name, one in self._placed.items()
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
        weights = {name: _made(one, coefficients) for name, one in self._rest.items()}
        arguments = {"input_ids": tokens, "attention_mask": attention, "use_cache": False}
        hidden = functional_call(self._base, weights, (), arguments).last_hidden_state
        bias = _made(self._bias, coefficients) if self._bias is not None else None
        hidden, targets = hidden[:, :-1][scored[:, 1:]], tokens[:, 1:][scored[:, 1:]]
        return nats(hidden, coefficients[self._head.name], bias, self._head, targets, self._shaped)


def _made(one: Placed, coefficients: Coefficients) -> Tensor:
    return one.weight([coefficients[source.name] for source in one.sources])


def _streamed(model: Module, placed: Mapping[str, Placed]) -> list[Any]:
    """Puts a layer that is streamed in place of each layer, and returns them."""
    found: dict[str, dict[str, Placed]] = {}
    for name, one in placed.items():
        layer = layer_of(name)
        if layer is not None:
            path = f"{layer[0]}.{layer[1]}"
            found.setdefault(path, {})[name.removeprefix(f"{path}.")] = one
    streamed: list[Any] = []
    for path, own in found.items():
        parent, _, number = path.rpartition(".")
        streamed.append(_Streamed(model.get_submodule(path), own))
        setattr(model.get_submodule(parent), number, streamed[-1])
    return streamed


def lines_together(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Numbers of lines, in groups that are at most so many tokens with padding; lines of like length are together."""
    groups: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if groups and (len(groups[-1]) + 1) * lengths[number] <= most:
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups
