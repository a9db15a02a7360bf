"""Whether another machine sees what a merge reads and writes, and has what it is done with: said before any work."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from modelmerger.hooks.providers import Provider
from modelmerger.inputs.installed.versions import version_of
from modelmerger.output.staged_files import SharedFiles
from modelmerger.values.errors import InputError, MergeError, OutputError, PluginError, Problem
from modelmerger.values.file_identity import FileIdentity
from modelmerger.values.layout import Layout
from modelmerger.values.work.units import WorkOrder

_PLACES = "Mount it there at the same path"
_SAME = "Install the same there"


def seen_of(files: Iterable[FileIdentity]) -> list[tuple[str, int, int, int]]:
    """What every machine must see of files, as `WorkOrder.inputs` has it."""
    return [(file.path, file.size, file.inode, file.mtime_ns) for file in files]


def plugins_of(providers: Iterable[Provider]) -> list[tuple[str, str, str]]:
    """What every machine must have of plugins, as `WorkOrder.plugins` has it."""
    return [(f"{one.kind} '{one.name}'", one.distribution, one.version) for one in providers]


def torch_version() -> str:
    """That of the torch that is installed."""
    return version_of("torch")


def check_places(order: WorkOrder, node: str) -> None:
    """Raises `InputError` and `OutputError` for the first file, or the staged tree, that this machine sees otherwise.

    node: what this machine is called.
    """
    try:
        with SharedFiles(Path(order.tree), Layout("", []), order.token):
            pass
    except OutputError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        message = f"is not seen on node '{node}': {error.__cause__.strerror}. {_PLACES}."
        raise OutputError(Problem(message, order.tree)) from None
    for path, size, inode, mtime_ns in order.inputs:
        try:
            status = os.stat(path)
        except OSError as error:
            message = f"is not seen on node '{node}': {error.strerror}. {_PLACES}."
            raise InputError(Problem(message, path)) from None
        for what, here, there in (
            ("size", size, status.st_size),
            ("inode", inode, status.st_ino),
            ("time of change (ns)", mtime_ns, status.st_mtime_ns),
        ):
            if here != there:
                message = f"is another file on node '{node}': its {what} is {here} here and {there} there. {_PLACES}."
                raise InputError(Problem(message, path))


def check_plugins(order: WorkOrder, installed: Sequence[tuple[str, str, str]], node: str) -> None:
    """Raises `MergeError` for the first plugin of the run, or its torch, that this machine has otherwise.

    installed: the plugins that this machine has.
    """
    theirs: dict[str, list[tuple[str, str]]] = {}
    for name, *source in installed:
        theirs.setdefault(name, []).append((source[0], source[1]))
    for name, distribution, version in order.plugins:
        if (distribution, version) not in (found := theirs.get(name, [])):
            there = _versus(distribution, found)
            raise PluginError(f"node '{node}': {name} from {distribution} {version} here, {there} there. {_SAME}.")
    if (torch := torch_version()) != order.torch:
        raise MergeError(f"node '{node}': torch {order.torch} here, {torch} there. {_SAME}.")


def check_no_more_plugins(order: WorkOrder, providers: Iterable[Provider], node: str) -> None:
    """Raises `PluginError` for a plugin that is always on and takes part on this machine alone."""
    ours = {name for name, _, _ in order.plugins}
    for provider in providers:
        if provider.kind == "plugin" and f"plugin '{provider.name}'" not in ours:
            raise PluginError(f"node '{node}': {provider} takes part there, and none of that name here. {_SAME}.")


def _versus(here: str, there: Sequence[tuple[str, str]]) -> str:
    """`1.0`, or with the name of another distribution."""
    if not there:
        return "missing"
    distribution, version = there[0]
    return version if distribution == here else f"{distribution} {version}"


def check_plan(order: WorkOrder, plan: str, decides: Mapping[str, str], node: str) -> None:
    """Raises `MergeError` where this machine comes to another plan. decides: what its digest is made of."""
    if plan != order.plan:
        differing = [part for part in {**order.decides, **decides} if order.decides.get(part) != decides.get(part)]
        raise MergeError(
            f"node '{node}': this worker would come to another plan than the run: {', '.join(differing)} differ here."
        )
