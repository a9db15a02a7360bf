"""Executes units of work in threads of this process."""

import threading

from modelmerger import SliceWork, hookimpl

PATIENCE = 0.1
"""Seconds between two checks of the threads, so that signals are handled in time."""


@hookimpl(trylast=True)
def run_slices(work: SliceWork) -> bool:
    """Runs `work.workers` threads that take units in order. The first error stops all at their next slice."""
    units = iter(work.units)
    lock = threading.Lock()
    errors: list[BaseException] = []

    def worker() -> None:
        try:
            while not errors:
                with lock:
                    unit = next(units, None)
                if unit is None:
                    return
                work.run(unit)
        except BaseException as error:
            errors.append(error)
            work.cancel()

    threads = [threading.Thread(target=worker, name=f"merge-{number}", daemon=True) for number in range(work.workers)]
    started: list[threading.Thread] = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
        for thread in threads:
            while thread.is_alive():
                thread.join(PATIENCE)
    except BaseException as error:
        errors.append(error)
        work.cancel()
        for thread in started:
            thread.join()
        raise
    if errors:
        raise errors[0]
    return True
