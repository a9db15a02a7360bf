"""Checks of loaders: a checkpoint reads what it says, any slice of it, in any thread, and damage is not believed."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

from attrs import field, frozen

from modelmerger.hooks.assembly import Hooks, assemble
from modelmerger.hooks.plugins import Plugin
from modelmerger.inputs.files import InputFiles
from modelmerger.inputs.loading import LoadContext
from modelmerger.inputs.tensor_bytes import bytes_of
from modelmerger.inputs.torch_dtypes import dtype_from_torch
from modelmerger.testing.checks.check import Check, Tensors, works
from modelmerger.testing.checks.checkpoint_reading import assert_counted, assert_slices, assert_threads, read
from modelmerger.testing.checks.given import all_plugins, handed_options, plugin_under_test
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import MergeError, PluginError
from modelmerger.values.model_reference import ModelReference


@frozen(eq=False)
class LoaderUnderTest:
    """What the checks of loaders take."""

    declared: Plugin
    """What its module declares."""
    path: Path
    """A model that it opens: a file or a directory."""
    tensors: Tensors | None = None
    """What that holds, if it is known."""
    options: Mapping[str, Any] = field(factory=dict)
    """Of the plugin."""

    @classmethod
    def of(
        cls,
        plugin: Any,
        *,
        path: str | os.PathLike[str],
        tensors: Tensors | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Self:
        """The loader under test. Raises `AssertionError` for a plugin without the hook."""
        return cls(plugin_under_test(plugin, "plugin", "load_model"), Path(path), tensors, options or {})

    @property
    def name(self) -> str:
        """As its entry point has it."""
        return self.declared.provider.name

    @contextmanager
    def opened(self, path: Path | None = None) -> Iterator[Checkpoint | None]:
        """What it makes of a path, open while the context lasts. path: None for its own."""
        hooks = assemble(all_plugins(self.declared), handed_options(self.declared, self.options))
        files = InputFiles()
        reference = ModelReference(str(path or self.path), "model", "models[0].path")
        context = LoadContext(files, None, partial(_open, hooks), hooks.models.locate_model)
        calls = hooks.models.calls
        try:
            yield calls.ask_one("load_model", self.declared.key, reference=reference, context=context)
        finally:
            files.close()

    @contextmanager
    def model(self) -> Iterator[Checkpoint]:
        """The model under its path. Raises `AssertionError` where it is not opened."""
        with works(f"{self.name}: opening {self.path}"), self.opened() as found:
            if not isinstance(found, Checkpoint):
                raise AssertionError(  # noqa: TRY004 (a check)
                    f"{self.name}: load_model gave {found!r} for {self.path}, and a Checkpoint is due."
                )
            yield found


def _open(hooks: Hooks, reference: ModelReference, context: LoadContext) -> Checkpoint:
    found = hooks.models.load_model(reference, context)
    if found is None:
        raise AssertionError(f"no installed plugin opens {reference.path}, which the loader asks for.")
    return found


def check_reads_what_it_says(loader: LoaderUnderTest) -> None:
    """Names, shapes, dtypes and numbers are those of the model, every time that it is opened."""
    with loader.model() as model:
        if not model.tensors:
            raise AssertionError(f"{loader.name}: the checkpoint says that it has no tensors.")
        found = {name: read(model, name) for name in model.tensors}
        if loader.tensors is not None:
            _compare(loader, model, loader.tensors, found)
        with loader.model() as again:
            if again.content != model.content or again.files != model.files:
                raise AssertionError(
                    f"{loader.name}: opened twice, the same model has another content or other files, so no "
                    "interrupted merge could go on. Make `content` of what decides the numbers alone."
                )
            if {name: read(again, name) for name in again.tensors} != found:
                raise AssertionError(f"{loader.name}: opened twice, the same model has other numbers.")


def _compare(loader: LoaderUnderTest, model: Checkpoint, due: Tensors, found: Mapping[str, bytes]) -> None:
    if missing := sorted(set(due) ^ set(model.tensors)):
        raise AssertionError(f"{loader.name}: {missing[0]} is a name of the model or of the checkpoint, not of both.")
    for name, tensor in due.items():
        info = model.tensors[name]
        if (info.dtype, info.shape) != (dtype_from_torch(tensor.dtype), tuple(tensor.shape)):
            raise AssertionError(
                f"{loader.name}: {name} is said to be {info.dtype} of shape {list(info.shape)}, and is "
                f"{dtype_from_torch(tensor.dtype)} of shape {list(tensor.shape)}."
            )
        if found[name] != (bytes(bytes_of(tensor.contiguous().view(-1))) if tensor.numel() else b""):
            raise AssertionError(f"{loader.name}: {name} is read with other numbers than the model has.")


def check_reads_any_slice(loader: LoaderUnderTest) -> None:
    """Any part of a tensor reads as that part of the whole, also none of it."""
    with loader.model() as model:
        assert_slices(model, loader.name)


def check_reads_in_any_thread(loader: LoaderUnderTest) -> None:
    """Several threads that read at the same time read what one does."""
    with loader.model() as model:
        assert_threads(model, loader.name)


def check_says_what_it_reads(loader: LoaderUnderTest) -> None:
    """`bytes_to_read` of the parts of a tensor add up, and what is read is in `files` or in `content`."""
    with loader.model() as model:
        assert_counted(model, loader.name)
        if not model.files and not model.content:
            raise AssertionError(
                f"{loader.name}: the checkpoint has neither files nor content, so a change of the model would go "
                "unnoticed. Open files by `context.open_file`, and hand what it gives on as `files`."
            )


def check_declines_others(loader: LoaderUnderTest) -> None:
    """What is no model of its kind is left to other loaders: None for an empty directory, an unknown file, a path that
    is not there.
    """
    with tempfile.TemporaryDirectory() as folder:
        empty, other = Path(folder, "empty"), Path(folder, "notes.txt")
        empty.mkdir()
        other.write_text("nothing that anyone merges\n")
        for path in (empty, other, Path(folder, "nowhere")):
            with works(f"{loader.name}: declining {path.name}"), loader.opened(path) as found:
                if found is not None:
                    raise AssertionError(f"{loader.name}: {path.name} is no model of its kind, so it must answer None.")


def check_damage_is_refused(loader: LoaderUnderTest) -> None:
    """A file that ends early, or is empty, is an InputError or harmless; never another exception or other numbers."""
    with loader.model() as model:
        due = {name: read(model, name) for name in model.tensors}
    with tempfile.TemporaryDirectory() as folder:
        for number, damaged in enumerate(_damaged(loader.path, Path(folder))):
            what = f"{loader.name}: opening a model whose {damaged.name} was cut off"
            try:
                with loader.opened(Path(folder, f"{number}", loader.path.name)) as found:
                    if found is None:
                        continue
                    numbers = {name: _raw(found, name) for name in found.tensors}
            except MergeError as error:
                if isinstance(error, PluginError):
                    sentence = "Check what the files claim, and raise an InputError that names the file."
                    raise AssertionError(f"{what} raised what is no InputError: {error} {sentence}") from error  # noqa: TRY004 (a check)
                continue
            if numbers != due:
                raise AssertionError(f"{what} gave other numbers. Check that files are as long as their tensors are.")


def _raw(model: Checkpoint, name: str) -> bytes:
    buffer = bytearray(model.tensors[name].bytes)
    model.read(name, 0, model.tensors[name].elements, memoryview(buffer))
    return bytes(buffer)


def _damaged(path: Path, folder: Path) -> Iterator[Path]:
    """Copies of the model, each under a number of its own, with one file cut off; that file."""
    files = [Path()] if path.is_file() else [p.relative_to(path) for p in sorted(path.rglob("*")) if p.is_file()]
    number = 0
    for file in files:
        for left in (0.5, 0.0):
            copy = folder / str(number) / path.name
            copy.parent.mkdir()
            shutil.copytree(path, copy) if path.is_dir() else shutil.copyfile(path, copy)
            target = copy / file if path.is_dir() else copy
            os.truncate(target, int(target.stat().st_size * left))
            number += 1
            yield target


LOADER_CHECKS = (
    Check(check_reads_what_it_says),
    Check(check_reads_any_slice),
    Check(check_reads_in_any_thread),
    Check(check_says_what_it_reads),
    Check(check_declines_others),
    Check(check_damage_is_refused),
)
"""In the order in which they run."""
