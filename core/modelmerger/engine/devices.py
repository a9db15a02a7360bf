"""Where slices are merged: on the CPU, or on a GPU that torch sees."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from modelmerger.values.errors import ConfigError, Problem

if TYPE_CHECKING:
    import torch


_GPU = re.compile(r"(?:cuda)?(?::?([0-9]+))?")


def check_device(device_map: str | Mapping[str, int | str]) -> None:
    """Raises `ConfigError` for a GPU that torch does not see. Imports torch only where a GPU is named."""
    if any(_GPU.fullmatch(str(name)) for name in _names(device_map)):
        slice_device(device_map)


def slice_device(device_map: str | Mapping[str, int | str]) -> "torch.device":
    """The device that a `device_map` names, else torch's current GPU, else the CPU.

    Raises `ConfigError` for a GPU that torch does not see.
    """
    import torch

    seen = torch.cuda.device_count()
    for name in _names(device_map):
        if (match := _GPU.fullmatch(str(name))) and int(match[1] or 0) >= seen:
            has = "none" if seen == 0 else f"{seen} of them, from cuda:0 on"
            raise ConfigError(
                Problem(f"{name!r} is a GPU, and torch sees {has}. Give 'auto' or 'cpu'.", "options.device_map")
            )
    if isinstance(device_map, str) and device_map.startswith(("cpu", "cuda")):
        return torch.device(device_map)
    return torch.device("cuda" if seen else "cpu")


def _names(device_map: str | Mapping[str, int | str]) -> list[int | str]:
    return [device_map] if isinstance(device_map, str) else list(device_map.values())
