"""The documents of a merged model: what belongs to the weights, what plugins put beside them, and the manifest, last."""

from modelmerger.output.manifest import FILE, REPORT, make_manifest
from modelmerger.output.staging import Staging
from modelmerger.planning.prepared import Prepared

WEIGHTS = "the weights"


def write_documents(ready: Prepared, staging: Staging) -> None:
    """Sidecars of every plugin, then the manifest."""
    companions = sorted({REPORT, *ready.hooks.validation.companions()})
    documents = dict(ready.plan.layout.documents)
    taken = dict.fromkeys([*(file.name for file in ready.plan.layout.files), *documents], WEIGHTS)
    taken[FILE] = "the manifest"
    documents |= ready.hooks.output.write_sidecars(ready.plan, ready.checkpoints, ready.settings, taken)
    manifest = make_manifest(
        ready.plan,
        [p.as_dict() for p in ready.hooks.providers],
        ready.settings,
        ready.checkpoints,
        staging.records,
        documents,
        ready.notes,
        companions,
    )
    for name, content in {**documents, FILE: manifest}.items():
        staging.write_document(name, content)
