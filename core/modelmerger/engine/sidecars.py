"""The documents of a merged model: those of the layout, the sidecars of plugins, and the manifest, which is last."""

from collections.abc import Callable, Mapping, Sequence

from attrs import evolve

from modelmerger.output.manifest import FILE, REPORT, make_manifest
from modelmerger.output.recorded import Recording
from modelmerger.planning.prepared import Prepared
from modelmerger.values.work.block_record import BlockRecord

WEIGHTS = "the weights"
"""What an error names as the owner of the layout's files."""


def write_documents(
    ready: Prepared,
    records: Mapping[tuple[int, int], BlockRecord],
    write: Callable[[str, bytes], None],
    extra: Sequence[str] = (),
) -> None:
    """Writes the documents of the layout, the sidecars of every plugin, then the manifest. Raises `PluginError`.

    records: of every block of the layout. write: makes a whole file of a name and its content. extra: names of what no
    merge wrote, which the manifest lists as such.
    """
    companions = sorted({REPORT, *ready.hooks.validation.companions()})
    documents = dict(ready.plan.layout.documents)
    reserved = dict.fromkeys([*(file.name for file in ready.plan.layout.files), *documents], WEIGHTS)
    reserved[FILE] = "the manifest"
    recording = Recording.of(
        [path for paths in ready.inputs.values() for path in paths], as_given=ready.settings.options.record_paths
    )
    plan, settings = recording.plan(ready.plan), evolve(ready.settings, given=recording.value(ready.settings.given))
    documents |= ready.hooks.output.write_sidecars(plan, ready.checkpoints, ready.configs, settings, reserved)
    manifest = make_manifest(
        plan,
        [p.as_dict() for p in ready.hooks.all_providers],
        settings,
        ready.checkpoints,
        records,
        documents,
        [recording.note(note) for note in ready.notes],
        companions,
        extra,
    )
    for name, content in {**documents, FILE: manifest}.items():
        write(name, content)
