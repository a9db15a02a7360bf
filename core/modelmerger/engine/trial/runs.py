"""Merges samples as a merge does, in one worker, and says what each took. What is merged goes nowhere."""

import math
import threading
import time
from collections.abc import Sequence

from attrs import evolve, frozen

from modelmerger.engine.arithmetic import one_thread_each
from modelmerger.engine.memory.resident import forget_peak, give_back, resident
from modelmerger.engine.merge import Merge
from modelmerger.engine.trial.samples import trial_plan
from modelmerger.engine.work.schedule import Schedule
from modelmerger.values.tensor_plan import TensorPlan
from modelmerger.values.work.block_record import BlockRecord


@frozen
class Took:
    """What merging a sample took."""

    elements: int
    """In the sample."""
    seconds: float
    """Of the processor, so that other programs make no sample smaller; its measurement with it."""
    memory: int
    """Bytes that a worker added at its peak, with all of the samples."""
    statistics: int
    """Bytes of what was measured of it."""


class _Nowhere:
    """A sink that forgets everything but what is done."""

    def __init__(self) -> None:
        self.records: dict[tuple[int, int], BlockRecord] = {}

    def open_file(self, file: int) -> int:
        return file

    def write(self, handle: int, file: int, content: memoryview, offset: int) -> None:
        pass

    def flush(self, handle: int, file: int, offset: int, length: int) -> None:
        pass

    def close_file(self, handle: int, file: int) -> None:
        pass

    def record(self, file: int, block: int, record: BlockRecord) -> None:
        self.records[file, block] = record


def run(merge: Merge, samples: Sequence[TensorPlan], seconds: float = math.inf, workers: int = 1) -> list[Took]:
    """What each of the samples took, in threads as those of a merge. Raises what merging them raises.

    seconds: after which nothing more is begun. workers: each of them merges all of the samples.
    """
    give_back()
    forget_peak()
    before, _ = resident()
    trying = [_Trying(merge, samples, seconds) for _ in range(workers)]
    threads = [threading.Thread(target=one.run, name="trial", daemon=True) for one in trying]
    with one_thread_each():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for one in trying:
        if one.error is not None:
            raise one.error
    _, peak = resident()
    return [evolve(took, memory=max(0, peak - before) // workers) for took in trying[0].took]


class _Trying:
    def __init__(self, merge: Merge, samples: Sequence[TensorPlan], seconds: float) -> None:
        self.error: BaseException | None = None
        self.took = [Took(sample.elements, 0.0, 0, 0) for sample in samples]
        self._seconds = seconds
        self._work = Schedule(evolve(merge, plan=trial_plan(merge.plan, samples)), _Nowhere(), _ignore)

    def run(self) -> None:
        try:
            self._do_all()
        except BaseException as error:
            self.error = error

    def _do_all(self) -> None:
        until = time.perf_counter() + self._seconds
        worker = self._work.local()
        while (task := self._work.take()) and time.perf_counter() < until:
            started = time.thread_time()
            done = worker.do(task)
            took = self.took[task.unit.of]
            counts = done.statistic is not None and not task.unit.first  # as much as for the other parts of the tensor
            self.took[task.unit.of] = evolve(
                took,
                seconds=took.seconds + time.thread_time() - started,
                statistics=took.statistics + (len(done.statistic.content) if counts and done.statistic else 0),
            )
            self._work.done(done)
        worker.close()


def _ignore(_: int) -> None:
    """Nobody watches."""
