"""The documents of a merged model: those of the layout, the sidecars of plugins, and the manifest, which is last."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from attrs import evolve

from modelmerger.inputs.whole_files import content_in_blocks
from modelmerger.output.digests import pieces_of_bytes
from modelmerger.output.manifest import FILE, REPORT, make_manifest
from modelmerger.planning.prepared import Prepared
from modelmerger.values.work.block_record import BlockRecord, Piece


def write_documents(
    ready: Prepared,
    records: Mapping[tuple[int, int], BlockRecord],
    write: Callable[[str, Iterable[bytes]], None],
    extra: Sequence[str] = (),
) -> None:
    """Writes the documents of the layout, the sidecars of every plugin, then the manifest.

    records: of every block of the layout. write: makes a whole file of a name and its content, piece by piece. extra:
    names of what no merge wrote, which the manifest lists as such. Raises `PluginError`, and `InputChangedError` for a
    copied file that is not what it was when the merge was planned.
    """
    companions = sorted({REPORT, *ready.hooks.validation.companions()})
    documents = {**ready.plan.layout.documents, **ready.sidecars.files}
    pieces: dict[str, list[Piece]] = {}
    for name, content in documents.items():
        blocks = [content] if isinstance(content, bytes) else content_in_blocks(content)
        pieces[name] = []
        write(name, _digested(blocks, pieces[name]))
    recording = ready.recording
    plan, settings = recording.plan(ready.plan), evolve(ready.settings, given=recording.value(ready.settings.given))
    manifest = make_manifest(
        plan,
        [p.as_dict() for p in ready.hooks.all_providers],
        settings,
        ready.checkpoints,
        records,
        {name: found for name, found in pieces.items() if name not in companions},
        [recording.note(note) for note in ready.notes],
        companions,
        extra,
        ready.figures,
        ready.input_tensors,
    )
    write(FILE, [manifest])


def _digested(blocks: Iterable[bytes], pieces: list[Piece]) -> Iterator[bytes]:
    """The blocks, each as it is written. Appends their pieces."""
    for block in blocks:
        pieces += pieces_of_bytes(block)
        yield block
