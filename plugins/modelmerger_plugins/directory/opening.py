"""Directories with weights, whole or in shards, and single files, opened as checkpoints.

What tells a path that is refused what it is instead is imported when there is one.
"""

import contextlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen
from modelmerger import (
    HEADS,
    Checkpoint,
    Donor,
    FileCheckpoint,
    FileIdentity,
    HeaderError,
    InputError,
    LoadContext,
    ModelReference,
    Problem,
    StoredTensor,
    TensorEntry,
    TensorInfo,
    is_embedding,
    is_head,
    list_directory,
    open_regular,
    read_beside,
    read_json,
    tied_heads,
)

from modelmerger_plugins.directory.claims import unbelievable_claims
from modelmerger_plugins.directory.formats import FORMATS, PICKLED, SAFETENSORS, Format
from modelmerger_plugins.directory.mlx import quantised
from modelmerger_plugins.directory.parts import absent_files, adapter_alone, one_shard, several, shard_count
from modelmerger_plugins.special_floats import MAY_BE_INFINITE

CONFIG_LIMIT, INDEX_LIMIT = 16 << 20, 128 << 20
MOST_TENSORS = 1_000_000
"""Of a model: several times as many as the largest mixtures of experts have, quantised."""
MOST_CONFIG_VALUES = 500_000


def open_path(reference: ModelReference, reader: "Reader") -> Checkpoint | None:
    """The checkpoint of a directory or file; None where nothing is known of the path.

    Raises `InputError` for all that is known and is no model.
    """
    path = reference.local
    if os.path.isdir(path):
        return _directory(reference, path, reader)
    if not os.path.lexists(path):
        from modelmerger_plugins.directory.absent import absent

        if (problem := absent(reference.given or reference.path)) is not None:
            raise InputError(problem)
        return None
    from modelmerger_plugins.directory.other_formats import by_first_bytes, by_name

    for form in FORMATS:
        if path.suffix in form.suffixes and by_name(path.name) is None:
            return _file(reference, path, reader, form)
    if not os.path.isfile(path):
        raise InputError(Problem("is neither a directory nor a regular file. Give a model's directory.", str(path)))
    kind = by_name(path.name) or by_first_bytes(_beginning(path))
    if kind is not None:
        raise InputError(Problem(f"is {kind.what}. {kind.remedy}", str(path)))
    return None


def _file(reference: ModelReference, path: Path, reader: "Reader", form: Format) -> Checkpoint:
    if (problem := one_shard(path)) is not None:
        raise InputError(problem)
    tensors, file = reader.read(path, path.parent, form)
    if not tensors:
        raise InputError(Problem("holds no tensor. Is this the right file?", str(path)))
    # what opens an adapter reads its weights through here, and names no path that a user gave
    if reference.given and (problem := adapter_alone(path, tensors)) is not None:
        raise InputError(problem)
    stored = {name: _stored(file, entry) for name, entry in tensors.items()}
    return _checkpoint(reference.name, stored, reader.context, (file,), Donor())


def _beginning(path: Path) -> bytes:
    from modelmerger_plugins.directory.other_formats import FIRST

    descriptor = open_regular(os.path.realpath(path))
    try:
        return os.pread(descriptor, FIRST, 0)
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}.", str(path))) from error
    finally:
        os.close(descriptor)


def _directory(reference: ModelReference, path: Path, reader: "Reader") -> Checkpoint:
    config = _json_object(path, "config.json", CONFIG_LIMIT, infinite=MAY_BE_INFINITE)
    form = _format(path)
    shards = _shards(path, form, reader)
    stored: dict[str, StoredTensor] = {}
    files = []
    for name, (tensors, wanted) in shards.items():
        entries, file = tensors
        files.append(file)
        if wanted is not None and wanted != set(entries):
            raise InputError(_disagreement(path, name, form, wanted, set(entries)))
        stored |= {tensor: _stored(file, entry) for tensor, entry in entries.items()}
        if len(stored) > MOST_TENSORS:
            raise InputError(Problem(f"holds more than {MOST_TENSORS:,} tensors, more than any model has.", str(path)))
    if not stored:
        raise InputError(Problem("holds no tensor. Is this the right directory?", str(path)))
    if (problem := adapter_alone(path, stored)) is not None:
        raise InputError(problem)
    if (message := quantised(config, stored)) is not None:
        raise InputError(Problem(message, str(path)))
    infos = [tensor.info for tensor in stored.values()]
    if claims := list(unbelievable_claims(config or {}, infos, f"{path.absolute()}/config.json")):
        raise InputError(*claims)
    donor = Donor(path.absolute(), config, _generation(path))
    return _checkpoint(reference.name, stored, reader.context, tuple(files), donor)


def _checkpoint(
    name: str, stored: dict[str, StoredTensor], context: LoadContext, files: tuple[FileIdentity, ...], donor: Donor
) -> Checkpoint:
    """The checkpoint of stored tensors, without LM heads that pickled files store at the offset of the embedding."""
    tied = tied_heads({name: (tensor.file, tensor.offset, tensor.info) for name, tensor in stored.items()})
    kept = {name: tensor for name, tensor in stored.items() if name not in tied}
    return FileCheckpoint(name, kept, context.files, files, donor, tied or _aliases(kept, donor.config))


def _format(path: Path) -> Format:
    """Safetensors if the directory has any, else pickled files that are not parts of something else."""
    present = list_directory(path)
    if SAFETENSORS.index in present or any(map(SAFETENSORS.has, present)):
        return SAFETENSORS
    if {PICKLED.index, PICKLED.single} & set(present):
        return PICKLED
    from modelmerger_plugins.directory.folders import without_weights

    if (problem := without_weights(path, present)) is not None:
        raise InputError(problem)
    if any(map(PICKLED.has, present)):
        return PICKLED
    raise InputError(
        Problem("has no safetensors weights. Give the directory that holds model.safetensors or its shards.", str(path))
    )


Tensors = tuple[Mapping[str, TensorEntry], FileIdentity]
"""The tensors of a file by name, and which file that is."""


@frozen(eq=False, repr=False)
class Reader:
    """Reads files of weights, pickled ones only if allowed."""

    context: LoadContext
    """Opens the files."""
    allow_pickle: bool
    """Whether pickled files may be read."""

    def read(self, path: Path, inside: Path, form: Format) -> Tensors:
        """What a file holds, and which file that is. inside: the directory that links must stay in.

        Raises `InputError`.
        """
        return _read(path, inside, form, self.context, self.allow_pickle)


def _shards(path: Path, form: Format, reader: "Reader") -> dict[str, tuple[Tensors, set[str] | None]]:
    """File name → what the file holds, and the tensors that the index says it holds (None without an index)."""
    index = _weight_map(path, form)
    single = os.path.lexists(path / form.single)
    if index is None:
        name = form.single if single else _only_file(path, form)
        return {name: (reader.read(path / name, path, form), None)}
    names = dict.fromkeys(index.values())
    if single and list(names) != [form.single]:
        message = (
            f"has both {form.single} and an index of other shards, so it is ambiguous which weights count. Remove one."
        )
        raise InputError(Problem(message, str(path)))
    if (problem := absent_files(path, names, form.index)) is not None:
        raise InputError(problem)
    wanted: dict[str, set[str]] = {name: set() for name in names}
    for tensor, name in index.items():
        wanted[name].add(tensor)
    return {name: (reader.read(path / name, path, form), wanted[name]) for name in names}


def _only_file(path: Path, form: Format) -> str:
    names = [name for name in list_directory(path) if form.has(name)]
    if len(names) != 1:
        raise InputError(several(path, names, form.name, form.index))
    if count := shard_count(names[0]):
        message = f"has {names[0]} alone of {count} files that hold a model together. Add the others and {form.index}."
        raise InputError(Problem(message, str(path)))
    return names[0]


def _weight_map(path: Path, form: Format) -> dict[str, str] | None:
    """Tensor → file name, from the index; None without one. Raises `InputError` for names that are not plain."""
    index = _json_object(path, form.index, INDEX_LIMIT, MOST_TENSORS)
    if index is None:
        return None
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(Problem("has no 'weight_map' of tensors to files.", str(path / form.index)))
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or not name.endswith(form.suffixes) or not _is_file_name(name):
            message = (
                f"sends this tensor to {name!r}, which is not the plain name of a {form.name} file "
                "in the same directory."
            )
            raise InputError(Problem(message, str(path / form.index), tensor))
    return weight_map


def _is_file_name(name: str) -> bool:
    return name not in (".", "..") and name.isprintable() and not set(name) & set("/\\\0")


def _read(path: Path, inside: Path, form: Format, context: LoadContext, allow_pickle: bool) -> Tensors:
    file = context.open_file(path, inside)
    if form is PICKLED and not allow_pickle:
        from modelmerger_plugins.directory.other_formats import under_another_name

        message = under_another_name(_beginning(Path(file.path)), zipped=True) or (
            "is pickled, and loading a pickle can run code. "
            "Convert the model to safetensors (save_pretrained does it), "
            "or set allow_pickle: true if you trust whoever made it."
        )
        raise InputError(Problem(message, str(path)))
    descriptor = open_regular(file.path)
    try:
        return form.read(descriptor, file.size), file
    except HeaderError as error:
        from modelmerger_plugins.directory.other_formats import FIRST, under_another_name

        if (other := under_another_name(os.pread(descriptor, FIRST, 0), form is PICKLED)) is not None:
            raise InputError(Problem(other, str(path))) from error
        raise InputError(Problem(f"{error.reason}.", str(path), error.tensor or "")) from error
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}.", str(path))) from error
    finally:
        os.close(descriptor)


def _stored(file: FileIdentity, entry: TensorEntry) -> StoredTensor:
    return StoredTensor(file, entry.begin, TensorInfo(entry.dtype, entry.shape))


def _disagreement(path: Path, name: str, form: Format, wanted: set[str], found: set[str]) -> Problem:
    if missing := sorted(wanted - found):
        return Problem(
            f"lacks this tensor, which {form.index} says it holds. Is the file complete?", str(path / name), missing[0]
        )
    surplus = sorted(found - wanted)
    return Problem(
        f"holds this tensor, which {form.index} does not send here. Remove what is not of this model.",
        str(path / name),
        surplus[0],
    )


def _json_object(
    path: Path, name: str, limit: int, most: int = MOST_CONFIG_VALUES, infinite: Collection[str] = ()
) -> dict[str, Any] | None:
    """A document; None where there is none. infinite: as `read_json` has it."""
    content = read_beside(path, name, limit)
    if content is None:
        return None
    value = read_json(content, str(path / name), infinite=infinite, nodes=most)
    if not isinstance(value, dict):
        raise InputError(Problem("is not a JSON object.", str(path / name)))
    return value


def _generation(path: Path) -> dict[str, Any] | None:
    """None also for what is not sound: a merge can do without it, and only the donor's counts."""
    with contextlib.suppress(InputError):
        return _json_object(path, "generation_config.json", CONFIG_LIMIT, infinite=MAY_BE_INFINITE)
    return None


def _aliases(stored: Mapping[str, StoredTensor], config: Mapping[str, Any] | None) -> dict[str, str]:
    """LM heads that the files leave out because they are tied to the embedding, unless the config says they are not."""
    if config is None or config.get("tie_word_embeddings") is False:
        return {}
    embeddings = [name for name in stored if is_embedding(name)]
    if len(embeddings) != 1 or any(map(is_head, stored)):
        return {}
    return dict.fromkeys(HEADS, embeddings[0])
