"""Merges samples as a merge does, in one worker, and says what each took. What is merged goes nowhere."""

import math
import threading
import time
from collections.abc import Sequence

from attrs import evolve, frozen

from modelmerger.engine.arithmetic import one_thread_each
from modelmerger.engine.merge import Merge
from modelmerger.engine.trial.resident import forget_peak, give_back, resident
from modelmerger.engine.trial.samples import trial_plan
from modelmerger.engine.work.schedule import Schedule
from modelmerger.values.plan import TensorPlan
from modelmerger.values.work.block_record import BlockRecord


@frozen
class Took:
    """What merging a sample took."""

    elements: int
    """In the sample."""
    seconds: float
    """Its measurement with it."""
    memory: int
    """Bytes that the worker had added by then, at their peak."""
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


def run(merge: Merge, samples: Sequence[TensorPlan], seconds: float = math.inf) -> list[Took]:
    """What each of the samples took, in a thread as those of a merge. Raises what merging them raises.

    seconds: after which nothing more is begun.
    """
    give_back()
    trying = _Trying(merge, samples, seconds)
    thread = threading.Thread(target=trying.run, name="trial", daemon=True)
    with one_thread_each():
        thread.start()
        thread.join()
    if trying.error is not None:
        raise trying.error
    return trying.took


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
        (before, _), until = resident(), time.perf_counter() + self._seconds
        worker = self._work.local()
        while (task := self._work.take()) and time.perf_counter() < until:
            forget_peak()
            started = time.perf_counter()
            done = worker.do(task)
            took, known = time.perf_counter() - started, self.took[task.unit.of]
            self.took[task.unit.of] = evolve(
                known,
                seconds=known.seconds + took,
                memory=max(known.memory, resident()[1] - before),
                statistics=known.statistics
                + (len(done.statistic.content) if done.statistic and not task.unit.first else 0),
            )
            self._work.done(done)
        worker.close()
        if self._work.error is not None:
            raise self._work.error


def _ignore(_: int) -> None:
    """Nobody watches."""
