"""Interruptions by the user or the system, told from what a plugin raises itself."""

import dis
import threading


def is_interruption(error: BaseException) -> bool:
    """Whether the user, or the system, interrupts: what a signal raises, and no statement of a plugin's.

    Signals are handled in the main thread alone, between any two instructions.
    """
    if not isinstance(error, KeyboardInterrupt):
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_globals.get("__name__", "").startswith("modelmerger."):
        return True
    raised = dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] in ("RAISE_VARARGS", "RERAISE")
    return not raised and threading.current_thread() is threading.main_thread()
