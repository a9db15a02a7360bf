"""What a directory is that has no weights of its own: another program's checkpoint, a cache, a folder of folders."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from modelmerger import InputError, Problem, list_directory, shown

from modelmerger_plugins.adapter_names import ADAPTER_CONFIG
from modelmerger_plugins.directory.formats import FORMATS, SAFETENSORS
from modelmerger_plugins.directory.other_formats import that_fills

_CACHED = re.compile(r"(?P<kind>models|datasets|spaces)--(?P<id>.+)")
_DEEPSPEED = re.compile(r"global_step\d+|zero_to_fp32\.py|(bf16_)?zero_pp_rank_.*|mp_rank_\d+_model_states\.pt")
_FSDP_FOLDER = re.compile(r"pytorch_model_fsdp_\d+|.*\.distcp")
_FSDP_RANKS = re.compile(r"model_world_size_\d+_rank_\d+\.pt|pytorch_model_fsdp_rank\d+\.bin")
_MEGATRON = re.compile(r"iter_\d{7}|mp_rank_\d\d(_\d{3})*|latest_checkpointed_iteration\.txt")
_ORBAX = re.compile(r"_CHECKPOINT_METADATA|manifest\.ocdbt|ocdbt\.process_\d+")
_BROKEN_OFF = re.compile(r".*\.(incomplete|part|partial|aria2|crdownload|download|tmp)")
_MOST_NAMED = 3
"""Sub-folders that are named."""
_MOST_LISTED = 100
"""Sub-folders that are looked into."""


def without_weights(path: Path, present: Sequence[str]) -> Problem | None:
    """What to say of a directory without weights that are read here; None where nothing is known of it.

    present: what it holds.
    """
    for tell in (_empty, _cache, _trained, _with_models, _of_other_formats, _broken_off):
        if (message := tell(path, present)) is not None:
            return Problem(message, str(path))
    return None


def _empty(_: Path, present: Sequence[str]) -> str | None:
    return None if present else "is an empty directory. Did a download fail? Give the directory that holds a model."


def _cache(path: Path, present: Sequence[str]) -> str | None:
    """The Hub's cache, whole, or the folder of one repository in it."""
    repository = _CACHED.fullmatch(Path(os.path.abspath(path)).name)
    if repository is not None and repository["kind"] != "models":
        return f"is one of the Hub's {repository['kind']} in its cache, and no model. Give a model."
    if repository is not None and "snapshots" in present:
        snapshots = list_directory(path / "snapshots")
        there = f", or {shown(path / 'snapshots' / snapshots[0], 160)}" if snapshots else ""
        return f"is the folder of a model in the Hub's cache. Give {_hub_id(repository)}{there}."
    models = [found for name in present if (found := _CACHED.fullmatch(name)) and found["kind"] == "models"]
    if models:
        return f"is the Hub's cache. Give a model in it by its name, as {_hub_id(models[0])}."
    return None


def _hub_id(found: re.Match[str]) -> str:
    return shown(found["id"].replace("--", "/"), 80)


def _trained(path: Path, present: Sequence[str]) -> str | None:
    """A checkpoint that a trainer left in its own form."""
    if any(map(_DEEPSPEED.fullmatch, present)):
        return (
            "is a checkpoint of DeepSpeed, whose weights are in parts. In it, run "
            "`python zero_to_fp32.py . merged --safe_serialization`, put config.json and the tokenizer into merged, "
            "and give that."
        )
    if (shards := next(filter(_FSDP_FOLDER.fullmatch, present), None)) is not None:
        where = path if shards.endswith(".distcp") else path / shards
        return (
            "is a checkpoint of FSDP, whose weights are in parts. Run "
            f"`accelerate merge-weights {shown(where, 60)} merged`, put config.json and the tokenizer into merged, "
            "and give that."
        )
    if any(map(_FSDP_RANKS.fullmatch, present)):
        return (
            "is a checkpoint of FSDP, with the weights of each process in a file. Join them with what the trainer has "
            "for it (verl: `python -m verl.model_merger merge`), and give what that wrote."
        )
    if any(map(_ORBAX.fullmatch, present)):
        return (
            "is a checkpoint of Orbax, as JAX writes. Convert it to a Hugging Face model with what the trainer has for "
            "it (MaxText: to_huggingface.py), and give that."
        )
    if any(map(_MEGATRON.fullmatch, present)):
        return "is a checkpoint of Megatron. Convert it with Megatron Bridge to a Hugging Face model, and give that."
    return None


def _with_models(path: Path, present: Sequence[str]) -> str | None:
    """A folder of folders, some of which are models: those in it, else those in its folders."""
    inside = {name: _listed(path / name) for name in _folders(path, present)}
    below = {
        f"{name}/{one}": _listed(path / name / one) for name in inside for one in _folders(path / name, inside[name])
    }
    for found in (inside, below):
        if adapters := [name for name, names in found.items() if ADAPTER_CONFIG in names]:
            plural = "s" if len(adapters) > 1 else ""
            set_them = (
                f"Set peft_config.adapter_names: [{shown(adapters[0], 40)}], or give" if found is inside else "Give"
            )
            return (
                f"has no weights of its own, but the adapter{plural} {_named(adapters)}. "
                f"{set_them} {shown(path / adapters[0])}."
            )
        if models := [name for name, names in found.items() if _has_weights(names)]:
            plural = "s" if len(models) > 1 else ""
            return f"has no weights of its own, but the model{plural} {_named(models)}. Give {shown(path / models[0])}."
    for name, names in inside.items():
        if (said := _trained(path / name, names)) is not None:
            return f"has no weights of its own, and {shown(name, 40)} in it {said}"
        if (checkpoint := next((one for one in names if one.endswith(".ckpt")), None)) is not None:
            return (
                f"has no weights of its own, but {shown(f'{name}/{checkpoint}', 80)}, a checkpoint of Lightning. Load "
                "it with the class that was trained, call save_pretrained on the model in it, and give what that wrote."
            )
    for name, names in inside.items():
        if (other := that_fills(names)) is not None:
            there = shown(f"{name}/{other[0]}", 60)
            return f"has no weights of its own, but {there}, which is {other[1].what}. {other[1].remedy}"
    return None


def _folders(path: Path, names: Sequence[str]) -> list[str]:
    """The folders among the names in a directory, without hidden ones."""
    return [name for name in names[:_MOST_LISTED] if name[:1] != "." and os.path.isdir(path / name)]


def _has_weights(names: Sequence[str]) -> bool:
    return any(form.single in names or form.index in names for form in FORMATS) or any(map(SAFETENSORS.has, names))


def _of_other_formats(_: Path, present: Sequence[str]) -> str | None:
    found = that_fills(present)
    if found is None:
        return None
    name, kind = found
    return f"has no safetensors weights, but {shown(name, 60)}, which is {kind.what}. {kind.remedy}"


def _broken_off(path: Path, present: Sequence[str]) -> str | None:
    downloads = [path / ".cache" / "huggingface" / "download"]
    if path.absolute().parent.name == "snapshots":  # of a model in the Hub's cache
        downloads.append(path.absolute().parent.parent / "blobs")
    names = [name for folder in downloads if os.path.isdir(folder) for name in _listed(folder)]
    if any(map(_BROKEN_OFF.fullmatch, (*present, *names))):
        return (
            "has no safetensors weights, and a download into it broke off. Run the download again, until it is whole."
        )
    return None


def _named(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return ", ".join(shown(name, 40) for name in found[:_MOST_NAMED]) + more


def _listed(folder: Path) -> list[str]:
    """What a folder holds; nothing where it cannot be listed."""
    try:
        return list_directory(folder)
    except InputError:
        return []
