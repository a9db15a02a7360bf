"""Does the work of a merge in threads of this process."""

import threading

from modelmerger import SliceWork, hookimpl

PATIENCE = 0.1
"""Seconds between two checks of the threads, so that signals are handled in time."""


@hookimpl(trylast=True)
def run_slices(work: SliceWork) -> bool:
    """Runs `work.workers` threads, each with a worker of its own, which hears what it will do next. The first error
    stops all at their next slice.
    """

    def run() -> None:
        try:
            worker = work.local()
            then = None
            while task := work.take(expected=then):
                then = work.expect()
                work.done(worker.do(task, then))
        except BaseException as error:
            work.failed(error)

    threads = [threading.Thread(target=run, name=f"merge-{number}", daemon=True) for number in range(work.workers)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(PATIENCE)
    except BaseException:
        work.cancel()  # so that a thread which has not come to its first task by now does none
        for thread in threads:
            if thread.is_alive():
                thread.join()
        raise
    return True
