"""The merged model as an object: loaded from its directory through transformers, and saved elsewhere as safely."""

import json
import logging
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve

from modelmerger.hooks.assembly import Hooks
from modelmerger.inputs.file_names import VOCABULARY_FILES
from modelmerger.inputs.files import InputFiles
from modelmerger.inputs.loading import LoadContext
from modelmerger.planning.configs import CONFIG
from modelmerger.planning.prepared import Prepared
from modelmerger.validation.tokenizing import PROBES, Proof
from modelmerger.values.errors import InputError, Problem
from modelmerger.values.model_reference import ModelReference
from modelmerger.values.options.core import CoreOptions
from modelmerger.values.plan import WHOLE_MODEL

UNLOADED = "Merge it by merge(config), which loads no model"
log = logging.getLogger("modelmerger")


def load_merged(directory: Path, options: CoreOptions, offload: Path, hooks: Hooks, base: Path | None = None) -> Any:
    """The model through the class that `architectures[0]` names; without config.json, the lazily read checkpoint.

    With `base`, the model that the directory's content belongs to, what a plugin makes of both. Placed as `device_map`
    says; with `low_memory_mode`, its weights stay in the directory and are read module by module as they are used.
    `offload` is a folder, made if need be, for weights that cannot be read from the directory by module.
    """

    def load(path: Path) -> Any:
        return load_merged(path, evolve(options, low_memory_mode=False), offload, hooks)

    made = hooks.validation.return_model(directory, base, load, low_memory_mode=options.low_memory_mode)
    if made is not None:
        return made
    config = directory / "config.json"
    if not config.exists():
        files = InputFiles()
        reference = ModelReference(str(directory), directory.name, "output_path")
        checkpoint = hooks.models.load_model(reference, LoadContext(files, trusted=True))
        if checkpoint is None:
            raise InputError(Problem("cannot be opened again: no plugin knows what was written.", str(directory)))
        weakref.finalize(checkpoint, files.close)
        return checkpoint
    model_class = class_of(json.loads(config.read_bytes()), str(config))
    safe = any(directory.glob("*.safetensors"))
    lazily = options.low_memory_mode and safe
    if options.low_memory_mode and not safe:
        log.warning(
            "low_memory_mode: the returned model is loaded, since weights are read lazily from safetensors alone."
        )
    model = model_class.from_pretrained(
        directory,
        dtype="auto",
        device_map={"": "disk"} if lazily else options.device_map,
        offload_folder=str(offload),
        local_files_only=True,
        use_safetensors=safe,
        trust_remote_code=False,
    )
    if lazily:
        model.__class__ = _taking_inputs_on_the_cpu(type(model))
    if options.gradient_checkpointing:
        checkpoint_gradients(model)
    return model.eval()


def _taking_inputs_on_the_cpu(model_class: Any) -> Any:
    """The class with a `device` to send inputs to. That of weights which stay on the disk is `meta`, and what is sent
    there is lost; lm-eval and `inputs.to(model.device)` do send it.
    """
    import torch

    named = {"__module__": model_class.__module__, "__qualname__": model_class.__qualname__}
    return type(model_class.__name__, (model_class,), {"device": property(lambda _: torch.device("cpu")), **named})


def check_loadable(ready: Prepared) -> None:
    """Raises `InputError` when `load_merged` would find no class for what is about to be merged."""
    donor, whole = ready.checkpoints[ready.plan.donor], ready.plan.writes == WHOLE_MODEL
    if not whole and ready.settings.base_model is None:  # there is nothing that it could be put on
        return
    if donor.donor.config is None and not whole:
        message = f"has no config.json, so no {ready.plan.writes} can be put on it. {UNLOADED}."
        raise InputError(Problem(message, donor.place))
    config = ready.configs.get(CONFIG, donor.donor.config)
    if config is not None:
        class_of(config, f"{donor.place}/{CONFIG}")


def checkpoint_gradients(model: Any) -> None:
    """Turns gradient checkpointing on; a warning where the model does not know it."""
    if not model.supports_gradient_checkpointing:
        log.warning("gradient_checkpointing: %s does not know it, so it stays off.", type(model).__name__)
        return
    if hasattr(model, "activation_checkpointing_enable"):  # the new name
        model.activation_checkpointing_enable()
    else:
        model.gradient_checkpointing_enable()
    model.config.use_cache = False
    if any(parameter.is_meta for parameter in model.parameters()):
        log.warning("gradient_checkpointing: the weights stay on the disk, and training needs them loaded.")


def load_tokenizer(directory: Path, proof: Proof, texts: Sequence[str] = ()) -> Any:
    """The tokenizer in a directory, or None where it has none. Everybody's comes from here: it is tried out first.

    proof: what it is known to end with then. texts: what it is about to be given, if that is known. Raises
    `UnmeasurableError` for one that runs away, and what transformers raises for one that it cannot load.
    """
    if not any(any(directory.glob(pattern)) for pattern in VOCABULARY_FILES):
        return None
    proof.of_file(directory, [*PROBES, *texts])
    import transformers

    return transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)


def class_of(config: Mapping[str, Any], place: str) -> Any:
    """The transformers class that a config.json names. Raises `InputError` where there is none."""
    import transformers

    names = config.get("architectures")
    if not names:
        kind = config.get("model_type")
        configs = transformers.CONFIG_MAPPING
        if isinstance(kind, str) and kind in configs and configs[kind] in transformers.MODEL_MAPPING:
            return transformers.AutoModel
        lack = f"names no architecture, and this transformers knows no model of the model_type {kind!r}"
        raise InputError(Problem(f"{lack}. {UNLOADED}.", place))
    name = names[0] if isinstance(names, list) else names
    found = getattr(transformers, name, None) if isinstance(name, str) else None
    if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
        return found
    lack = f"names the architecture {name!r}, and this transformers has no such model class"
    raise InputError(Problem(f"{lack}. {UNLOADED}.", place))
