"""The merged model as an object: loaded from its published directory through transformers, and saved elsewhere as safely."""

import json
import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelmerger.hooks.assembly import assemble
from modelmerger.hooks.registry import Registry
from modelmerger.inputs.files import InputFiles
from modelmerger.inputs.loading import LoadContext
from modelmerger.inputs.safetensors_header import read_header
from modelmerger.output.digests import Piece, pieces_of_file
from modelmerger.output.manifest import FILE, encoded, file_entry, read_manifest
from modelmerger.output.publishing import check_apart, check_output, give_name, sync_file
from modelmerger.output.staging import no_step, output_errors
from modelmerger.planning.updates import Written
from modelmerger.validation.adapters import return_model
from modelmerger.values.checkpoint import Checkpoint, ModelReference
from modelmerger.values.errors import ConfigError, InputError, Problem
from modelmerger.values.settings import CoreOptions, Settings

UNLOADED = "Merge it by merge(config), which loads no model"
WEIGHTS = ("model.safetensors", "model-", "pytorch_model", "adapter_model")
log = logging.getLogger("modelmerger")
TOKENIZERS = ("tokenizer*", "vocab.*", "*.model", "tekken.json")


def load_merged(directory: Path, options: CoreOptions, offload: Path, base: Path | None = None) -> Any:
    """The model through the class that `architectures[0]` names; without config.json, the lazily read checkpoint.

    Placed as `device_map` says; with `low_memory_mode`, its weights stay in the directory and are read module by module as they
    are used. `offload` is a folder, made if need be, for weights that cannot be read from the directory by module. With `base`,
    what lies in the directory is put on that model.
    """
    if base is not None:
        return return_model(directory, base, options, lambda place, given: load_merged(place, given, offload))
    config = directory / "config.json"
    if not config.exists():
        files = InputFiles()
        checkpoint = assemble(Registry.installed(), None).load_model(
            ModelReference(str(directory), directory.name, "output_path"), LoadContext(files, allow_pickle=True)
        )
        if checkpoint is None:
            raise InputError(Problem("cannot be opened again: no plugin knows what was written.", str(directory)))
        weakref.finalize(checkpoint, files.close)
        return checkpoint
    model_class = _class_of(json.loads(config.read_bytes()), str(config))
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
    if options.gradient_checkpointing:
        _checkpoint_gradients(model)
    return model.eval()


def check_class(donor: Checkpoint, writes: Written) -> None:
    """Raises `InputError` when `load_merged` would find no class for a merge that takes its config from `donor`.

    writes: whether the merge writes a model or an adapter.
    """
    if donor.donor.config is None and writes == "adapter":
        raise InputError(Problem(f"has no config.json, so no adapter can be put on it. {UNLOADED}.", donor.place))
    if donor.donor.config is not None:
        _class_of(donor.donor.config, f"{donor.place}/config.json")


def _checkpoint_gradients(model: Any) -> None:
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


def load_tokenizer(directory: Path) -> Any:
    """The tokenizer in a directory, or None where it has none."""
    if not any(any(directory.glob(pattern)) for pattern in TOKENIZERS):
        return None
    import transformers

    return transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)


def _class_of(config: Mapping[str, Any], place: str) -> Any:
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


def save(model: Any, published: Path | None, target: Path, settings: Settings) -> None:
    """Writes a returned model, as it is now, and the files beside its weights; all of it appears under `target` in one step."""
    if published is None:
        raise ConfigError("nothing is merged yet, so there is nothing to save. Call merge() first.")
    check_output(target, settings.options.overwrite, ())
    for name, source in settings.paths.items():
        if os.path.exists(place := os.path.expanduser(source)):  # a Hub id is no place
            check_apart(target, name, [place])
    with output_errors(target), tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        tree = Path(folder) / "model"
        if isinstance(model, Checkpoint):
            shutil.copytree(published, tree)
        else:
            tree.mkdir()
            model.save_pretrained(tree, max_shard_size=settings.options.max_shard_size)
            _copy_documents(published, tree)
            _write_manifest(published, tree)
        for path in sorted(tree.rglob("*"), reverse=True):
            if path.is_file():
                path.chmod(tree.stat().st_mode & 0o666)  # safetensors makes its files 0600, whatever the umask
            sync_file(path)
        sync_file(tree)
        give_name(tree, target, settings.options.overwrite, no_step)


def _copy_documents(published: Path, tree: Path) -> None:
    """What the model itself does not write: tokenizer, licences, card."""
    for path in sorted(published.rglob("*")):
        copy = tree / path.relative_to(published)
        is_weights = path.name.startswith(WEIGHTS)
        if path.is_file() and path.name != FILE and not is_weights and not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)


def _write_manifest(published: Path, tree: Path) -> None:
    manifest = read_manifest(published)
    files = {path.relative_to(tree).as_posix(): path for path in sorted(tree.rglob("*")) if path.is_file()}
    entries = {name: file_entry(_pieces(path)) for name, path in files.items() if name not in manifest["companions"]}
    (tree / FILE).write_bytes(encoded({**manifest, "files": entries}))


def _pieces(path: Path) -> list[Piece]:
    """A file's pieces, those of weights by tensor, so that `verify` names the one that was damaged."""
    if path.suffix != ".safetensors":
        return pieces_of_file(path)
    with path.open("rb") as file:
        header = read_header(file.fileno(), path.stat().st_size)
    parts = [(header.data_start, ""), *((entry.end, entry.name) for entry in header.entries.values())]
    return pieces_of_file(path, parts)
