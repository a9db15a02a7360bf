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

    def run(ended: threading.Event) -> None:
        try:
            worker = work.local()
            then = None
            while task := work.take(expected=then):
                then = work.expect()
                work.done(worker.do(task, then))
        except BaseException as error:
            work.failed(error)
        finally:
            ended.set()

    ends = [threading.Event() for _ in range(work.workers)]
    threads = [
        threading.Thread(target=run, args=(ended,), name=f"merge-{number}", daemon=True)
        for number, ended in enumerate(ends)
    ]
    try:
        for thread in threads:
            thread.start()
        for ended in ends:
            while not ended.wait(PATIENCE):
                pass
    except BaseException:
        work.cancel()  # so that a thread which has not come to its first task by now does none
        raise
    finally:  # no sooner: Pythons before 3.13 take a thread for ended while it is joined and that is interrupted
        for thread in threads:
            if thread.ident is not None:  # it was started
                thread.join()
    return True
