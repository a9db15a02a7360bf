"""What a signal raises is an interruption, and a statement of a plugin's is not."""

import os
import signal
import threading

import pytest
from modelmerger.hooks.interruptions import is_interruption


def test_a_signal_interrupts() -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        os.kill(os.getpid(), signal.SIGINT)
    assert is_interruption(caught.value)


def test_a_statement_does_not() -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        raise KeyboardInterrupt
    assert not is_interruption(caught.value)
    assert not is_interruption(SystemExit(1))


def test_nothing_interrupts_another_thread() -> None:
    found: list[bool] = []

    def run() -> None:
        try:
            signal.default_int_handler(2, None)
        except KeyboardInterrupt as error:
            found.append(is_interruption(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False]
