"""`modelmerger.json`: what an output directory is made of, so that it is known as ours and a flipped bit is found."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelmerger.inputs.installed.versions import version_of
from modelmerger.inputs.regular_files import read_small
from modelmerger.inputs.strict_json import read_json
from modelmerger.output.digests import NAME, block_count, digest_of_pieces
from modelmerger.output.journal import is_sums
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import InputError, MergeError, Problem
from modelmerger.values.layout import InputTensors
from modelmerger.values.plain_names import is_plain_name, is_plain_path
from modelmerger.values.plan import MergePlan, PlannedModel
from modelmerger.values.settings import Settings
from modelmerger.values.work.block_record import BlockRecord, Piece
from modelmerger.values.work.figures import Rows

FILE = "modelmerger.json"
"""The manifest's name."""
REPORT = "validation.json"
"""What a validation found, beside the model: a companion that the core itself writes."""
SCHEMA = 1
"""The version of its form."""
_LIMIT = 512 << 20


def make_manifest(
    plan: MergePlan,
    plugins: Sequence[Mapping[str, str]],
    settings: Settings,
    checkpoints: Sequence[Checkpoint],
    records: Mapping[tuple[int, int], BlockRecord],
    documents: Mapping[str, Sequence[Piece]],
    notes: Sequence[Problem],
    companions: Sequence[str],
    extra: Sequence[str] = (),
    figures: Mapping[str, Rows] | None = None,
    taken: Mapping[str, InputTensors] | None = None,
) -> bytes:
    """The manifest of a finished merge. It holds no time and no path of the staging, so equal merges have equal
    manifests.

    plan, settings, notes: as they are recorded. plugins: a row for each that took part, of plain data. records: of
    every block of the plan's layout, by file and block. documents: the pieces of the other files, by name. companions:
    names of files that may be written again after the merge, and so are not digested. extra: names of what no merge
    wrote and the output holds. figures: what plugins measured of the output, by title. taken:
    what becomes of the tensors of each model.
    """
    files = {}
    for number, file in enumerate(plan.layout.files):
        blocks = range(block_count(file.size))
        files[file.name] = file_entry([piece for block in blocks for piece in records[number, block].pieces])
    files |= {name: file_entry(pieces) for name, pieces in documents.items()}
    manifest = {
        "schema": SCHEMA,
        "modelmerger": version_of("modelmerger"),
        "torch": version_of("torch"),
        "plan": plan.digest,
        "seed": settings.options.seed,
        "config": settings.given,
        "donor": plan.models[plan.donor].name,
        "sources": [_source(checkpoint, model) for checkpoint, model in zip(checkpoints, plan.models, strict=True)],
        "plugins": list(plugins),
        "notes": [{"severity": note.severity, "message": str(note)} for note in notes],
        "counts": total_counts(records),
        "observed": total_observed(records),
        "beside": plan.beside.as_dict(),
        "input_tensors": {name: found.as_dict() for name, found in (taken or {}).items()},
        **({"figures": dict(figures)} if figures else {}),
        "digest": NAME,
        "files": dict(sorted(files.items())),
        "companions": list(companions),
        **({"extra": list(extra)} if extra else {}),
    }
    return encoded(manifest)


def _source(checkpoint: Checkpoint, model: PlannedModel) -> dict[str, Any]:
    """A model and its files; for one that is a merge, the models that it is made of, with their weights."""
    source: dict[str, Any] = {"name": checkpoint.name, "path": model.path}
    if (merge := model.merge) is None:
        files = [{"name": Path(file.path).name, "size": file.size} for file in checkpoint.files]
        return source | ({"revision": model.revision} if model.revision else {}) | {"files": files}
    inner = [
        {**_source(theirs, of_theirs), "weight": of_theirs.weight, **of_theirs.own_options()}
        for theirs, of_theirs in zip(checkpoint.sources, merge.models, strict=True)
    ]
    return source | {
        "merge": {
            "strategy": merge.strategy,
            "options": dict(merge.options),
            "plan": merge.digest,
            "donor": merge.models[merge.donor].name,
            "sources": inner,
        }
    }


def encoded(manifest: Mapping[str, Any]) -> bytes:
    """JSON in UTF-8. A byte of a file's name that is no UTF-8, half a surrogate pair to Python, stays an escape."""
    return (json.dumps(manifest, ensure_ascii=False, indent=1) + "\n").encode(errors="backslashreplace")


def file_entry(pieces: Sequence[Piece]) -> dict[str, Any]:
    """What the manifest says of a file: size and digest, and of each piece length, digest and tensor in a line."""
    return {
        "size": sum(piece.length for piece in pieces),
        "digest": digest_of_pieces(pieces),
        "pieces": list(map(str, pieces)),
    }


def pieces_of(entry: Mapping[str, Any]) -> list[Piece]:
    """The pieces in what the manifest says of a file."""
    return list(map(Piece.parsed, entry["pieces"]))


def has_tensors(entry: Mapping[str, Any]) -> bool:
    """Whether what the manifest says of a file is of one with weights."""
    return any(piece.tensor for piece in pieces_of(entry))


def total_counts(records: Mapping[tuple[int, int], BlockRecord]) -> dict[str, int]:
    """What the strategy counted (clamped values), over all blocks."""
    totals: dict[str, int] = {}
    for record in records.values():
        for key, value in record.counts.items():
            totals[key] = totals.get(key, 0) + value
    return dict(sorted(totals.items()))


def total_observed(records: Mapping[tuple[int, int], BlockRecord]) -> dict[str, dict[str, float]]:
    """What plugins observed: tensor → statistic → sum over all blocks, added in the order of the blocks.

    Nothing of a plugin that failed on a slice: there, its key stands alone (`plugin 'x'`, not `plugin 'x': found`).
    """
    totals: dict[str, dict[str, float]] = {}
    for _, record in sorted(records.items()):
        for tensor, found in record.observed.items():
            sums = totals.setdefault(tensor, {})
            for name, value in found.items():
                sums[name] = sums.get(name, 0) + value
    failed = {name for sums in totals.values() for name in sums if ": " not in name}
    kept = {
        tensor: {n: v for n, v in sums.items() if n.split(": ")[0] not in failed} for tensor, sums in totals.items()
    }
    return {tensor: dict(sorted(sums.items())) for tensor, sums in sorted(kept.items()) if sums}


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of an output directory. Raises `InputError` where there is none, or none that this version knows."""
    path = directory / FILE
    content = read_small(path, _LIMIT)
    try:
        manifest = read_json(content, str(path))
        schema = manifest["schema"]
        if not isinstance(schema, int) or (schema == SCHEMA and not _is_sound(manifest)):
            raise ValueError("a part is missing or has another form")
    except InputError as error:
        raise InputError(
            Problem(f"is not the manifest of a merge: it {error.problems[0].message}", str(path))
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        reason = error if isinstance(error, ValueError) else "a part is missing or has another form"
        raise InputError(Problem(f"is not the manifest of a merge: {reason}.", str(path))) from error
    if schema != SCHEMA:
        raise InputError(
            Problem(
                f"has schema {schema!r}, and this version of modelmerger knows {SCHEMA}. "
                "Use the version that wrote it.",
                str(path),
            )
        )
    return dict(manifest)


def read_manifest_of_weights(directory: Path) -> dict[str, Any]:
    """The manifest of an output directory that may be replaced: one that lists no weights makes nothing ours.

    Raises `InputError`.
    """
    manifest = read_manifest(directory)
    if not any(map(has_tensors, manifest["files"].values())):
        raise InputError(Problem("lists no weights, so it is no manifest of a merge.", str(directory / FILE)))
    return manifest


def is_ours(directory: Path) -> bool:
    """Whether a directory carries a manifest of ours."""
    try:
        read_manifest_of_weights(directory)
    except MergeError:
        return False
    return True


def records_paths(manifest: Mapping[str, Any]) -> bool:
    """Whether the merge was told to record local paths."""
    config = manifest.get("config")
    options = config.get("options") if isinstance(config, dict) else None
    return isinstance(options, dict) and options.get("record_paths") is True


def _is_sound(manifest: Mapping[str, Any]) -> bool:
    files, companions = manifest["files"], manifest["companions"]
    return (
        isinstance(files, dict)
        and isinstance(companions, list)
        and all(isinstance(name, str) and is_plain_name(name) for name in companions)
        and isinstance(manifest["plan"], str)
        and _are_texts(manifest.get("extra", []))
        and is_sums(manifest.get("observed", {}))
        and all(
            is_plain_path(name)
            and all(isinstance(piece, str) for piece in file["pieces"])
            and file_entry(pieces_of(file)).items() <= file.items()
            for name, file in files.items()
        )
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def unfinished(companion: str) -> str:
    """The name under which a companion is written before it is renamed over the one before."""
    return f".{companion}.new"
