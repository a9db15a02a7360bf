"""All that differs between two models, from their files or from the manifests of the merges that made them."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen
from modelmerger import (
    Checkpoint,
    ConfigError,
    InputError,
    MergeConfig,
    ModelMerger,
    Problem,
    layer_of,
    precedes_layers,
    read_beside,
    read_json,
)

from modelmerger_plugins.diff.documents import Changed, config_changes, file_changes, vocabulary_change
from modelmerger_plugins.diff.tensors import Difference, differences, relative

MANIFEST = "modelmerger.json"
Advance = Callable[[int, int], None]


@frozen
class Group:
    """The tensors of a layer, or those before, behind or outside of the layers."""

    name: str
    """`model.layers.3`; `before the layers`, `behind the layers`."""
    tensors: int
    """How many are in both models in one shape."""
    changed: int
    """How many of them differ."""
    relative: float | None
    """‖b − a‖ / ‖a‖ over all of them; None where a is zero and b is not, or where only digests were compared."""


@frozen
class Differences:
    """What differs between A and B."""

    a: str
    """What was given."""
    b: str
    """What was given."""
    compared: str
    """`numbers`, or `digests` of manifests."""
    tensors: int
    """How many are in both in one shape."""
    changed: int
    """How many of them differ."""
    relative: float | None
    """‖b − a‖ / ‖a‖ over all of them."""
    cosine: float | None
    """Of a and b over all of them."""
    groups: Sequence[Group] = field(repr=False)
    """From the first layer to the last."""
    changes: Sequence[Mapping[str, Any]] = field(repr=False)
    """Of each tensor that differs, in dtype alone too: name, elements changed of all, relative distance, largest
    difference, dtypes."""
    only_a: Sequence[str] = field(repr=False)
    """Tensors that B lacks."""
    only_b: Sequence[str] = field(repr=False)
    """Tensors that A lacks."""
    shapes: Mapping[str, tuple[Sequence[int], Sequence[int]]] = field(repr=False)
    """Tensors whose shapes differ, with both."""
    documents: Sequence[Changed] = field(repr=False)
    """Keys of configs and files that differ."""
    vocabulary: Mapping[str, int] | None = None
    """Tokens that are the same, moved, only in A, only in B; None without two tokenizer.json."""

    @property
    def are_equal(self) -> bool:
        """Whether nothing differs."""
        return not (self.changes or self.only_a or self.only_b or self.shapes or self.documents)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for `--json`."""
        return {**attrs.asdict(self), "equal": self.are_equal}


def compare(a: str, b: str, base: str | None, advance: Advance) -> Differences:
    """Compares B with A.

    base: what adapters belong to; None: what they name. advance: called with the bytes that were read, and all of them.
    Raises `InputError`, and `ConfigError` for a manifest beside a model that has none.
    """
    if any(Path(place).is_file() and Path(place).suffix == ".json" for place in (a, b)):
        return _of_manifests(a, b)
    (first, _open), (second, _also) = _opened(a, base), _opened(b, base)
    both = {name: info for name, info in first.tensors.items() if name in second.tensors}
    shapes = {n: (i.shape, second.tensors[n].shape) for n, i in both.items() if i.shape != second.tensors[n].shape}
    both = {name: info for name, info in both.items() if name not in shapes}
    total = sum(info.bytes + second.tensors[name].bytes for name, info in both.items())
    lock, done = threading.Lock(), 0

    def count(read: int) -> None:
        nonlocal done
        with lock:
            done += read
            advance(done, total)

    found = list(differences(first, second, both, count))
    places = [model.donor.directory for model in (first, second)]
    configs = [
        config_changes(first.donor.config, second.donor.config, "config.json"),
        config_changes(first.donor.generation, second.donor.generation, "generation_config.json"),
        file_changes(*places),
    ]
    lengths = sum(d.length for d in found), sum(d.other_length for d in found)
    norm = (lengths[0] * lengths[1]) ** 0.5
    return Differences(
        a=a,
        b=b,
        compared="numbers",
        tensors=len(found),
        changed=sum(1 for d in found if d.changed),
        relative=relative(sum(d.moved for d in found), lengths[0]),
        cosine=sum(d.product for d in found) / norm if norm else None,
        groups=_groups(found),
        changes=[_row(d) for d in found if d.changed or d.dtypes[0] != d.dtypes[1]],
        only_a=sorted(first.tensors.keys() - second.tensors.keys()),
        only_b=sorted(second.tensors.keys() - first.tensors.keys()),
        shapes=shapes,
        documents=[one for changed in configs for one in changed],
        vocabulary=vocabulary_change(*places),
    )


def _opened(place: str, base: str | None) -> tuple[Checkpoint, ModelMerger]:
    """A model alone, so that no other one decides how it is seen, and what keeps its files open."""
    merger = ModelMerger(MergeConfig("weighted", [{"path": place, "name": "model"}], base_model=base))
    return merger.load_models()["model"], merger


def _row(found: Difference) -> dict[str, Any]:
    return {
        "name": found.name,
        "elements": found.elements,
        "changed": found.changed,
        "relative": found.relative,
        "largest": found.largest,
        "dtypes": list(found.dtypes),
    }


def group_of(name: str) -> tuple[int, str, int, str]:
    """What orders the groups of tensors, and the name of this one's."""
    layer = layer_of(name)
    if layer is not None:
        return 1, layer[0], layer[1], f"{layer[0]}.{layer[1]}"
    return (0, "", 0, "before the layers") if precedes_layers(name) else (2, "", 0, "behind the layers")


def _groups(found: Sequence[Difference]) -> list[Group]:
    groups: dict[tuple[int, str, int, str], list[Difference]] = {}
    for one in found:
        groups.setdefault(group_of(one.name), []).append(one)
    return [
        Group(
            key[-1],
            len(members),
            sum(1 for d in members if d.changed),
            relative(sum(d.moved for d in members), sum(d.length for d in members)),
        )
        for key, members in sorted(groups.items())
    ]


def _of_manifests(a: str, b: str) -> Differences:
    first, second = _manifest(a), _manifest(b)
    tensors = _digests(first, a), _digests(second, b)
    both = [name for name in tensors[0] if name in tensors[1]]
    changed = [name for name in both if tensors[0][name] != tensors[1][name]]
    groups: dict[tuple[int, str, int, str], list[str]] = {}
    for name in both:
        groups.setdefault(group_of(name), []).append(name)
    configs = [{k: v for k, v in (one.get("config") or {}).items() if k != "output_path"} for one in (first, second)]
    parts = [config_changes(configs[0], configs[1], "config of the merge")]
    parts.append(_files(first, second))
    return Differences(
        a=a,
        b=b,
        compared="digests",
        tensors=len(both),
        changed=len(changed),
        relative=None if changed else 0.0,
        cosine=None,
        groups=[
            Group(key[-1], len(names), sum(name in changed for name in names), None)
            for key, names in sorted(groups.items())
        ],
        changes=[{"name": name, "relative": None} for name in changed],
        only_a=sorted(tensors[0].keys() - tensors[1].keys()),
        only_b=sorted(tensors[1].keys() - tensors[0].keys()),
        shapes={},
        documents=[one for changes in parts for one in changes],
    )


def _manifest(place: str) -> Mapping[str, Any]:
    path = Path(place)
    directory, name = (path, MANIFEST) if path.is_dir() else (path.parent, path.name)
    content = read_beside(directory, name)
    if content is None:
        raise ConfigError(Problem("has no manifest to compare. Give two manifests, or two models", place))
    document = read_json(content, str(directory / name))
    if not isinstance(document, dict) or not isinstance(document.get("files"), dict):
        raise InputError(Problem("is not the manifest of a merge.", str(directory / name)))
    return document


def _digests(manifest: Mapping[str, Any], place: str) -> dict[str, list[str]]:
    """Tensor → the lengths and digests of its pieces."""
    found: dict[str, list[str]] = {}
    with suppress(TypeError, ValueError, KeyError):
        for entry in manifest["files"].values():
            for piece in entry["pieces"]:
                length, digest, *tensor = piece.split(" ", 2)
                if tensor:
                    found.setdefault(tensor[0], []).append(f"{length} {digest}")
        return found
    raise InputError(Problem("is not the manifest of a merge.", place))


def _files(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Changed]:
    """Files without tensors whose digests differ."""
    old, new = (
        {
            name: str(entry.get("digest"))[:12]
            for name, entry in manifest["files"].items()
            if not any(" " in piece.split(" ", 1)[-1] for piece in entry["pieces"])
        }
        for manifest in (a, b)
    )
    return [
        Changed(name, old.get(name), new.get(name), True)
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
