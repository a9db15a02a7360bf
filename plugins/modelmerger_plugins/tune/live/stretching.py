"""A merged model whose update of the base is as long as one likes: θ_base + factor·(θ − θ_base)."""

from typing import Any

from modelmerger import ConfigError


class Stretched:
    """Changes one model in place. Besides it, its numbers and those of the base are in memory."""

    def __init__(self, model: Any, base: Any) -> None:
        """Raises `ConfigError` where the two do not have the same tensors."""
        self._model = model
        self._base = dict(base.named_parameters())
        self._merged = {name: one.detach().clone() for name, one in model.named_parameters()}
        shapes = [{name: one.shape for name, one in tensors.items()} for tensors in (self._base, self._merged)]
        if shapes[0] != shapes[1]:
            raise ConfigError("the merged model has other tensors than the base, so there is no way between them.")

    def by(self, factor: float) -> Any:
        """The model with its update multiplied by a factor."""
        import torch

        with torch.no_grad():
            for name, one in self._model.named_parameters():
                wide = torch.promote_types(one.dtype, torch.float32)
                base, merged = (tensors[name].to(one.device, wide) for tensors in (self._base, self._merged))
                one.copy_(torch.lerp(base, merged, factor))
        return self._model
