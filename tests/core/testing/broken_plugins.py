"""A validator, loader, view, executor or writer of files for each check that it does not pass, all else being sound."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from attrs import frozen
from modelmerger import (
    CheckpointView,
    FileCheckpoint,
    Finding,
    InputError,
    Problem,
    StoredTensor,
    TensorInfo,
    UnmeasurableError,
    hookimpl,
    read_beside,
    read_json,
)

NUMBERS = {"a": np.arange(6, dtype="<f4"), "b": np.arange(100, 107, dtype="<f4")}
_calls = itertools.count(1)


class LongAnswers:
    """A sound validator."""

    metrics = MappingProxyType({"length": "lower"})

    @hookimpl
    def validate_model(self, subject: Any) -> Any:
        lengths = [len(answer.ids) for group in subject.answers().values() for answer in group]
        if not lengths:
            raise UnmeasurableError("there are no answers")
        yield from self.found(sum(lengths) / len(lengths), subject)

    def found(self, value: float, subject: Any) -> Any:
        yield Finding(metric="length", value=value, evidence="all answers")


class AnyOption(LongAnswers):
    @frozen
    class Options:
        long_from: Any = 5


class Undeclared(LongAnswers):
    def found(self, value: float, subject: Any) -> Any:
        yield Finding(metric="other", value=value, evidence="all answers")


class NoEvidence(LongAnswers):
    def found(self, value: float, subject: Any) -> Any:
        yield Finding(metric="length", value=value, evidence=" ")


class NotANumber(LongAnswers):
    def found(self, value: float, subject: Any) -> Any:
        yield Finding(metric="length", value=float("nan"), evidence="all answers")


class Twice(LongAnswers):
    def found(self, value: float, subject: Any) -> Any:
        for _ in range(2):
            yield Finding(metric="length", value=value, evidence="all answers")


class Nothing(LongAnswers):
    def found(self, value: float, subject: Any) -> Any:
        return []


class Counted(LongAnswers):
    def found(self, value: float, subject: Any) -> Any:
        yield Finding(metric="length", value=next(_calls), evidence="all answers")


class Drawn(LongAnswers):
    def found(self, value: float, subject: Any) -> Any:
        torch.rand(1)
        yield Finding(metric="length", value=value, evidence="all answers")


class Trains(LongAnswers):
    def found(self, value: float, subject: Any) -> Any:
        subject.model.train()
        yield Finding(metric="length", value=value, evidence="all answers")


class Halves(LongAnswers):
    def found(self, value: float, subject: Any) -> Any:
        with torch.no_grad():
            subject.model.head.bias.mul_(0.5)
        yield Finding(metric="length", value=value, evidence="all answers")


class Backward(LongAnswers):
    def found(self, value: float, subject: Any) -> Any:
        subject.model(torch.ones(1, 3, dtype=torch.long)).logits.sum().backward()
        yield Finding(metric="length", value=value, evidence="all answers")


class Divides(LongAnswers):
    @hookimpl
    def validate_model(self, subject: Any) -> Any:
        lengths = [len(text) for group in subject.texts.values() for text in group]
        yield Finding(metric="length", value=sum(lengths) / len(lengths), evidence="all texts")


class Encodes(LongAnswers):
    @hookimpl
    def validate_model(self, subject: Any) -> Any:
        if not any(map(len, subject.texts.values())):
            raise UnmeasurableError("there are no texts")
        yield Finding(metric="length", value=len(subject.tokenizer.encode("a text")), evidence="one text")


class Flat:
    """A sound loader of models in one file of numbers, and one that says which tensors these are."""

    @hookimpl
    def load_model(self, reference: Any, context: Any) -> Any:
        folder = reference.local
        content = read_beside(folder, "shapes.json") if folder.is_dir() else None
        if content is None:
            return None
        file, stored, offset = context.open_file(folder / "numbers.f32"), {}, 0
        for name, shape in self.shapes(content, str(folder / "shapes.json")).items():
            stored[name] = StoredTensor(file, offset, TensorInfo("F32", tuple(shape)))
            offset += stored[name].info.bytes
        self.check(file, offset)
        return self.made(FileCheckpoint(reference.name, stored, context.files, (file,)))

    def shapes(self, content: bytes, place: str) -> Any:
        return read_json(content, place)

    def check(self, file: Any, length: int) -> None:
        if file.size != length:
            raise InputError(Problem(f"has {file.size} bytes, and its tensors take {length}.", file.path))

    def made(self, checkpoint: Any) -> Any:
        return checkpoint


class _Shown(CheckpointView):
    content = "shown"

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        self.checkpoint.read(tensor, start, stop, buffer)


class _FromStart(_Shown):
    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        self.checkpoint.read(tensor, 0, stop - start, buffer)


class _NotNothing(_Shown):
    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        if start == stop:
            raise ValueError("nothing to read")
        self.checkpoint.read(tensor, start, stop, buffer)


class _FirstRange(_Shown):
    def read_ranges(self, tensor: str, ranges: Sequence[tuple[int, int]], buffer: memoryview) -> None:
        for start, stop in ranges[:1]:
            self.read(tensor, start, stop, buffer[: 4 * (stop - start)])


class _OnePosition(_Shown):
    """Remembers where it is, and is read by others before it reads."""

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        import time

        self.asked = tensor, start, stop
        time.sleep(0.001)
        name, first, last = self.asked
        whole = bytearray(self.checkpoint.tensors[name].bytes)
        self.checkpoint.read(name, 0, self.checkpoint.tensors[name].elements, memoryview(whole))
        found = bytes(whole[4 * first : 4 * last])
        buffer[: len(found)] = found[: len(buffer)] if len(found) > len(buffer) else found


class _Doubled(_Shown):
    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        self.checkpoint.read(tensor, start, stop, buffer)
        np.frombuffer(buffer, "<f4")[:] *= 2


class _DoubledUnsaid(_Doubled):
    @property
    def content(self) -> str:
        return self.checkpoint.content


class _AnotherContent(_Shown):
    @property
    def content(self) -> str:
        return f"content {next(_calls)}"


class _WholeBytes(_Shown):
    def bytes_to_read(self, tensor: str, start: int, stop: int) -> int:
        return self.checkpoint.bytes_to_read(tensor, 0, self.tensors[tensor].elements)


class _NoFiles(_Shown):
    content = ""

    def __init__(self, checkpoint: Any) -> None:
        super().__init__(checkpoint)
        self.files = ()


class LoadsOthers(Flat):
    def made(self, checkpoint: Any) -> Any:
        return _Doubled(checkpoint)


class LoadsAnew(Flat):
    def made(self, checkpoint: Any) -> Any:
        return _AnotherContent(checkpoint)


class LoadsFewer(Flat):
    def made(self, checkpoint: Any) -> Any:
        return CheckpointView(checkpoint, {"a": "a"})


class LoadsFromStart(Flat):
    def made(self, checkpoint: Any) -> Any:
        return _FromStart(checkpoint)


class LoadsNotNothing(Flat):
    def made(self, checkpoint: Any) -> Any:
        return _NotNothing(checkpoint)


class LoadsFirstRange(Flat):
    def made(self, checkpoint: Any) -> Any:
        return _FirstRange(checkpoint)


class LoadsAlone(Flat):
    def made(self, checkpoint: Any) -> Any:
        return _OnePosition(checkpoint)


class CountsWhole(Flat):
    def made(self, checkpoint: Any) -> Any:
        return _WholeBytes(checkpoint)


class SaysNoFiles(Flat):
    def made(self, checkpoint: Any) -> Any:
        return _NoFiles(checkpoint)


class TakesAll(Flat):
    @hookimpl
    def load_model(self, reference: Any, context: Any) -> Any:
        if not (reference.local / "shapes.json").exists():
            raise InputError(Problem("is no flat model.", reference.path))
        return super().load_model(reference, context)


class Believes(Flat):
    def shapes(self, content: bytes, place: str) -> Any:
        return json.loads(content)


class Pads(Flat):
    """Numbers that are not there are zero."""

    def check(self, file: Any, length: int) -> None:
        if file.size < length and Path(file.path).stat().st_size:
            with open(file.path, "ab") as numbers:
                numbers.truncate(length)

    @hookimpl
    def load_model(self, reference: Any, context: Any) -> Any:
        folder = reference.local
        numbers = folder / "numbers.f32"
        if folder.is_dir() and numbers.is_file():
            with open(numbers, "ab") as file:
                file.truncate(4 * sum(map(len, NUMBERS.values())))
        return super().load_model(reference, context)


class View:
    """A sound view, of what it shows through."""

    shown: Any = CheckpointView

    @hookimpl
    def view_models(self, checkpoints: Any) -> Any:
        return [self.shown(checkpoint) for checkpoint in checkpoints]


class FirstAlone(View):
    @hookimpl
    def view_models(self, checkpoints: Any) -> Any:
        return [CheckpointView(checkpoints[0])]


class OtherName(View):
    @staticmethod
    def shown(checkpoint: Any) -> Any:
        view = CheckpointView(checkpoint)
        view.name = "other"
        return view


class ChangesConfig(View):
    @staticmethod
    def shown(checkpoint: Any) -> Any:
        checkpoint.donor.config["hidden_size"] = 1
        return CheckpointView(checkpoint)


class ReadsAtOnce(View):
    @staticmethod
    def shown(checkpoint: Any) -> Any:
        checkpoint.read("a", 0, 1, bytearray(4))
        return CheckpointView(checkpoint)


class FromStart(View):
    shown = _FromStart


class Alone(View):
    shown = _OnePosition


class Unsaid(View):
    shown = _DoubledUnsaid


class Anew(View):
    shown = _AnotherContent


class Sidecar:
    """Sound: a file about the merge."""

    @hookimpl
    def write_sidecars(self, plan: Any, checkpoints: Any, configs: Any) -> Any:
        return {"about.txt": f"{plan.strategy} of {len(checkpoints)}".encode()}


class Outside(Sidecar):
    @hookimpl
    def write_sidecars(self) -> Any:
        return {"../about.txt": b""}


class Weights(Sidecar):
    @hookimpl
    def write_sidecars(self) -> Any:
        return {"model.safetensors": b""}


class Text(Sidecar):
    @hookimpl
    def write_sidecars(self) -> Any:
        return {"about.txt": "about"}


class Dated(Sidecar):
    @hookimpl
    def write_sidecars(self) -> Any:
        return {"about.txt": str(next(_calls)).encode()}


class ReadsWeights(Sidecar):
    @hookimpl
    def write_sidecars(self, checkpoints: Any) -> Any:
        checkpoints[0].read("w", 0, 4, bytearray(16))
        return {}


class ChangesConfigs(Sidecar):
    @hookimpl
    def write_sidecars(self, configs: Any) -> Any:
        configs["config.json"]["hidden_size"] = 1
        return {}


class InOrder:
    """A sound executor."""

    @hookimpl
    def run_slices(self, work: Any) -> Any:
        worker = work.local()
        while task := work.take():
            self.do(worker, task, work)
        worker.close()
        return True

    def do(self, worker: Any, task: Any, work: Any) -> None:
        work.done(worker.do(task))


class Declines(InOrder):
    @hookimpl
    def run_slices(self, work: Any) -> Any:
        return None


class FirstTask(InOrder):
    @hookimpl
    def run_slices(self, work: Any) -> Any:
        work.done(work.local().do(work.take()))
        return True


class Wraps(InOrder):
    def do(self, worker: Any, task: Any, work: Any) -> None:
        try:
            work.done(worker.do(task))
        except Exception as error:
            raise RuntimeError("a worker failed") from error


BROKEN = {
    "validator": {
        "check_validation_options": [AnyOption],
        "check_findings": [Undeclared, NoEvidence, NotANumber, Twice, Nothing],
        "check_same_findings_twice": [Counted, Drawn],
        "check_model_is_kept": [Trains, Halves, Backward],
        "check_unmeasurable_models": [Divides, Encodes],
    },
    "loader": {
        "check_reads_what_it_says": [LoadsOthers, LoadsAnew, LoadsFewer],
        "check_reads_any_slice": [LoadsFromStart, LoadsNotNothing, LoadsFirstRange],
        "check_reads_in_any_thread": [LoadsAlone],
        "check_says_what_it_reads": [CountsWhole, SaysNoFiles],
        "check_declines_others": [TakesAll],
        "check_damage_is_refused": [Believes, Pads],
    },
    "view": {
        "check_views_stand_for_models": [FirstAlone, OtherName, ChangesConfig],
        "check_views_read_nothing": [ReadsAtOnce],
        "check_views_read_any_slice": [FromStart],
        "check_views_read_in_any_thread": [Alone],
        "check_views_have_content": [Unsaid, Anew],
    },
    "executor": {
        "check_executor_makes_the_same_files": [Declines, FirstTask],
        "check_executor_passes_errors_on": [Wraps],
    },
    "sidecars": {
        "check_sidecars_have_plain_names": [Outside, Weights, Text],
        "check_sidecars_are_the_same_twice": [Dated],
        "check_sidecars_read_no_weights": [ReadsWeights],
        "check_sidecars_keep_arguments": [ChangesConfigs],
    },
}
SOUND = {"validator": LongAnswers, "loader": Flat, "view": View, "executor": InOrder, "sidecars": Sidecar}
