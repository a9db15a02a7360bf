"""The documents of a merged model: those of the layout, the sidecars of plugins, and the manifest, which is last."""

from modelmerger.output.manifest import FILE, REPORT, make_manifest
from modelmerger.output.staging import Staging
from modelmerger.planning.prepared import Prepared

WEIGHTS = "the weights"
"""What an error names as the owner of the layout's files."""


def write_documents(ready: Prepared, staging: Staging) -> None:
    """Writes the documents of the layout, the sidecars of every plugin, then the manifest. Raises `PluginError`."""
    companions = sorted({REPORT, *ready.hooks.validation.companions()})
    documents = dict(ready.plan.layout.documents)
    reserved = dict.fromkeys([*(file.name for file in ready.plan.layout.files), *documents], WEIGHTS)
    reserved[FILE] = "the manifest"
    sidecars = ready.hooks.output.write_sidecars
    documents |= sidecars(ready.plan, ready.checkpoints, ready.configs, ready.settings, reserved)
    manifest = make_manifest(
        ready.plan,
        [p.as_dict() for p in ready.hooks.all_providers],
        ready.settings,
        ready.checkpoints,
        staging.records,
        documents,
        ready.notes,
        companions,
    )
    for name, content in {**documents, FILE: manifest}.items():
        staging.write_document(name, content)
