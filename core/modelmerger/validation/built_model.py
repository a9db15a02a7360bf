"""The merged model as an object, built from tensors in memory: what loading the same tensors from files gives."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelmerger.hooks.validation import ValidationHooks
from modelmerger.validation.transformers_model import class_of
from modelmerger.values.options.core import CoreOptions

if TYPE_CHECKING:
    from torch import Tensor


def can_build(config: Mapping[str, Any], options: CoreOptions, hooks: ValidationHooks) -> bool:
    """Whether `build` gives what `load_merged` gives for a whole model of this config.

    Not where something of it is read from files: weights of a model that stays on the disk, or whatever a plugin of
    another distribution, or transformers itself, looks for beside the weights.
    """
    import transformers

    placed = options.device_map.values() if isinstance(options.device_map, Mapping) else ()
    model_class = class_of(config, "config.json")
    config_class = getattr(model_class, "config_class", None)
    return (
        not options.low_memory_mode
        and "disk" not in placed
        and not hooks.others_return_models
        and isinstance(config_class, type)
        and issubclass(model_class, transformers.PreTrainedModel)
        and not getattr(config_class, "extra_files", ())
        and not config.keys() & {"quantization_config", "transformers_weights"}
    )


def build(directory: Path, tensors: "dict[str, Tensor]", options: CoreOptions) -> Any:
    """The model through the class that `architectures[0]` of the config in a directory names, in evaluation mode.

    tensors: of the whole model by name, as files would have them. They become its parameters without a copy, unless
    they are moved, joined or converted. Placed as `device_map` says.
    """
    model_class = class_of(json.loads((directory / "config.json").read_bytes()), str(directory))
    config = model_class.config_class.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    model = model_class.from_pretrained(
        None,
        config=config,
        state_dict=tensors,
        dtype="auto",
        device_map=options.device_map,
        max_memory=_room(options.device_map, tensors),
        local_files_only=True,
        trust_remote_code=False,
    )
    _name(model, str(directory))
    if model.can_generate():
        model.generation_config = _generation_config(directory)
    return model.eval()


def _name(model: Any, name: str) -> None:
    """Says where the model comes from, wherever a model that is loaded from files says it."""
    unnamed = model.name_or_path
    model.config.name_or_path = name
    for module in model.modules():
        if getattr(module, "name_or_path", None) == unnamed:
            module.name_or_path = name


def _generation_config(directory: Path) -> Any:
    """As `from_pretrained` of a model finds it."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(directory, local_files_only=True)
    except OSError:  # there is none that can be read
        of_model: dict[str, Any] = {"config_file_name": "config.json", "_from_model_config": True}
        return GenerationConfig.from_pretrained(directory, local_files_only=True, **of_model)


def _room(device_map: str | Mapping[str, int | str], tensors: "Mapping[str, Tensor]") -> dict[int | str, int] | None:
    """How much a device may hold where transformers finds the map: the machine's memory holds the tensors already."""
    if not isinstance(device_map, str) or device_map.startswith(("cpu", "cuda")):
        return None
    from accelerate.utils import get_max_memory  # type: ignore[import-untyped]

    room: dict[int | str, int] = get_max_memory()
    room["cpu"] += sum(tensor.nbytes for tensor in tensors.values())
    return room
