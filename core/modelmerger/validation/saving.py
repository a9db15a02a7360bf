"""A returned model saved to another directory, as it is now and as safely as a merge is published."""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from modelmerger.inputs.safetensors_header.reading import read_header
from modelmerger.output.digests import pieces_of_file
from modelmerger.output.earlier.apart import Inputs
from modelmerger.output.entries import set_mode, sync_file
from modelmerger.output.manifest import FILE, encoded, file_entry, has_tensors, read_manifest
from modelmerger.output.publishing import check_output, check_room, clear_published, extra_entries, publish
from modelmerger.output.staging import Staging
from modelmerger.output.steps import Step, no_step
from modelmerger.output.system_errors import output_errors
from modelmerger.validation.saved_names import FileNames, as_they_are, save_pretrained
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import ConfigError, Problem
from modelmerger.values.layout import Layout
from modelmerger.values.options.core import CoreOptions
from modelmerger.values.work.block_record import Piece


def save(
    model: Any,
    published: Path,
    target: Path,
    options: CoreOptions,
    inputs: Inputs,
    step: Step = no_step,
    *,
    file_names: FileNames = as_they_are,
) -> list[Problem]:
    """Writes a returned model, as it is now, and the files beside its weights; `target` appears in one step.

    published: where the merge wrote those files. inputs: what it read. Returns what the user should know of it. Raises
    `ConfigError` for what is no model, and `OutputError`.
    """
    model = model if isinstance(model, Checkpoint) else _inside(model)
    notes = clear_published(target, step)
    check_output(target, options, inputs)
    check_room(target, _least_size(model, published))
    with Staging(target, f"saved {secrets.token_hex(16)}", Layout("safetensors", []), step) as staging:
        notes += staging.notes
        if staging.removed_other_plan:
            message = "an unfinished merge or saving was removed."
            notes.append(Problem(message, str(staging.root), severity="warning"))
        extra = extra_entries(target, options)
        with output_errors(staging.tree):
            _write(model, published, staging.tree, options, step, file_names)
            _write_manifest(published, staging.tree, extra)
            _sync(staging.tree, step)
        staging.keep(extra)
        staging.sync()
        return [*notes, *publish(staging, options, step)]


def _inside(model: Any) -> Any:
    """The model in wrappers that hold one module each and cannot save it, such as data parallelism."""
    found = model
    while not hasattr(found, "save_pretrained"):
        inner = list(found.children()) if hasattr(found, "children") else []
        if len(inner) != 1:
            raise ConfigError(f"cannot save {type(model).__name__}: it is no model that merge() returned.")
        (found,) = inner
    return found


def _least_size(model: Any, published: Path) -> int:
    """Bytes that the weights are known to take: as merged, or as they are now if that is less."""
    merged: int = sum(entry["size"] for entry in read_manifest(published)["files"].values())
    if isinstance(model, Checkpoint):
        return merged
    now: int = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return min(merged, now)


def _write(model: Any, published: Path, tree: Path, options: CoreOptions, step: Step, file_names: FileNames) -> None:
    step("write", tree)
    if not isinstance(model, Checkpoint):
        with _system_errors():
            save_pretrained(model, tree, file_names, options.max_shard_size)
    for name in _documents(published, weights=isinstance(model, Checkpoint)):
        source, copy = published / name, tree / name
        if source.is_file() and not copy.exists():
            step("write", copy)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)


def _documents(published: Path, *, weights: bool) -> list[str]:
    """Names of the files that the merge wrote and the model itself does not: tokenizer, licences, card, folders."""
    manifest = read_manifest(published)
    files = manifest["files"]
    of_model = [name for name in files if has_tensors(files[name]) or name.endswith(".index.json")]
    wanted = [name for name in files if weights or "/" in name or name not in of_model]
    return [*wanted, *manifest["companions"]]


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
    """Raises what the system said where safetensors packs it into an error of its own."""
    try:
        yield
    except SafetensorError as error:
        if (found := re.search(r"\(os error (\d+)\)", str(error))) is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error


def _write_manifest(published: Path, tree: Path, extra: Sequence[str]) -> None:
    manifest = read_manifest(published)
    manifest.pop("extra", None)
    files = {path.relative_to(tree).as_posix(): path for path in sorted(tree.rglob("*")) if path.is_file()}
    entries = {name: file_entry(_pieces(path)) for name, path in files.items() if name not in manifest["companions"]}
    kept = {"extra": list(extra)} if extra else {}
    (tree / FILE).write_bytes(encoded({**manifest, "files": entries, **kept}))


def _pieces(path: Path) -> list[Piece]:
    """A file's pieces, those of weights by tensor, so that `verify` names the one that was damaged."""
    if path.suffix != ".safetensors":
        return pieces_of_file(path)
    with path.open("rb") as file:
        header = read_header(file.fileno(), path.stat().st_size)
    parts = [(header.data_start, ""), *((entry.end, entry.name) for entry in header.entries.values())]
    return pieces_of_file(path, parts)


def _sync(tree: Path, step: Step) -> None:
    """All that is staged is on the disk when this returns, with the modes that files have."""
    mode = tree.stat().st_mode & 0o666  # safetensors makes its files 0600, whatever the umask
    for path in sorted(tree.rglob("*"), reverse=True):
        if path.is_file():
            set_mode(path, mode)
        step("fsync", path)
        sync_file(path)
