"""What workers of other processes and machines are told of a merge."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from modelmerger.engine.work.elsewhere import Elsewhere
from modelmerger.planning.prepared import Prepared
from modelmerger.refusals import check_executor
from modelmerger.values.options.core import CoreOptions
from modelmerger.values.settings import Settings
from modelmerger.values.work.block_record import BlockRecord
from modelmerger.values.work.units import WorkOrder


class Staged(Protocol):
    """Files that are staged, as far as workers elsewhere need them."""

    token: str
    """Of the run."""

    @property
    def tree(self) -> Path:
        """Where they are."""

    def is_written(self, file: int, block: int, record: BlockRecord) -> bool:
        """Whether a block is there as its record says."""


def for_workers(ready: Prepared, staged: Staged) -> Elsewhere:
    """What a merge has for workers elsewhere. Its order raises `ConfigError` where they could not open the models."""

    def order() -> WorkOrder:
        from modelmerger.engine.work.node import plugins_of, seen_of, torch_version

        check_executor(ready.settings, ready.hooks)
        return WorkOrder(
            config=_config_for_workers(ready.settings),
            located=[(path, str(place.directory), place.revision) for path, place in ready.located.items()],
            plan=ready.plan.digest,
            decides=ready.plan.decides,
            tree=str(staged.tree),
            token=staged.token,
            inputs=seen_of(ready.plan.inputs),
            plugins=plugins_of(ready.hooks.all_providers),
            torch=torch_version(),
        )

    return Elsewhere(order, staged.token, staged.is_written, str(staged.tree))


def _config_for_workers(settings: Settings) -> Mapping[str, Any]:
    """With which way bytes go and how much of them is kept, which the manifest does not hold."""
    how = {"io": settings.options.io, "memory": settings.options.memory}
    default = CoreOptions()
    told = {key: value for key, value in how.items() if value != getattr(default, key)}
    return {**settings.given, "options": {**settings.given.get("options", {}), **told}} if told else settings.given
