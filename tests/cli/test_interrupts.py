"""A signal ends the program with one line, whatever it is doing: before its imports, in one, while it ends already."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from modelmerger.cli.interrupts import Interrupts, Terminated, interrupts

SIGNALS = pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
AT_IMPORT = """
import os, signal, sys
import modelmerger.__main__

class Asked:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.{signal})

sys.meta_path.insert(0, Asked())
sys.argv = ["modelmerger", *{arguments!r}]
modelmerger.__main__.run()
"""


def ended(module: str, sent: signal.Signals, *arguments: str) -> tuple[int, str]:
    """The command line gets a signal while it imports a module: its exit status, and what it said."""
    code = AT_IMPORT.format(module=module, signal=sent.name, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


@SIGNALS
def test_before_the_command_line_is_there(sent: signal.Signals, status: int) -> None:
    """A20"""
    assert ended("modelmerger.cli.process", sent, "plugins") == (status, "error: interrupted. Nothing was written.\n")


@SIGNALS
def test_while_a_command_imports_what_it_needs(sent: signal.Signals, status: int, path: Path) -> None:
    """A20"""
    found = ended("modelmerger.planning.outlook.rates", sent, "plan", str(path))
    assert found == (status, "error: interrupted. Nothing was written.\n")


def test_a_library_that_makes_another_exception_of_the_signal_changes_no_status(
    path: Path, distribution: Callable[..., Path], command: Callable[..., SimpleNamespace]
) -> None:
    """A20: as Ray does with SIGTERM while it waits."""
    source = """
import os, signal
from modelmerger import hookimpl

@hookimpl
def check_compatibility():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        signal.default_int_handler(signal.SIGINT, None)
"""
    distribution("acme-waits", "1.0", "[modelmerger.plugins]\nwaits = acme_waits\n", acme_waits=source)
    assert command("check", path).status == 143


def test_an_ignored_signal_stays_ignored(path: Path) -> None:
    """A20"""
    code = AT_IMPORT.format(module="modelmerger.run", signal="SIGINT", arguments=["check", str(path)])
    command = [sys.executable, "-c", f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "the models can be merged\n")


def test_no_exception_goes_into_an_import_and_it_comes_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A20"""
    (tmp_path / "half_a_module.py").write_text("import signal\nsignal.raise_signal(signal.SIGTERM)\nwhole = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with interrupts(), pytest.raises(Terminated):
        import half_a_module  # type: ignore[import-not-found]

        assert half_a_module.whole
        signal.pause()
    sys.modules.pop("half_a_module")


def test_a_further_signal_ends_the_process_at_once() -> None:
    """A20"""
    code = """
import os, signal
from modelmerger.cli.interrupts import interrupts
with interrupts():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        signal.raise_signal(signal.SIGTERM)
print("not reached")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "error: interrupted.\n")


def test_what_handled_signals_before_does_so_again() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with interrupts() as ours:
        assert isinstance(ours, Interrupts)
        assert signal.getsignal(signal.SIGINT) is signal.getsignal(signal.SIGTERM) is ours
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_module_that_calls_the_command_line_as_it_is_imported_is_no_reason_to_wait(tmp_path: Path) -> None:
    """A20"""
    (tmp_path / "calling.py").write_text("""
import os, signal
from modelmerger.cli import process

def interrupted(*_, **__):
    signal.raise_signal(signal.SIGTERM)

process.cli.make_context = interrupted
status = process.main(["plugins"])
""")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import calling; print(calling.status)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("143\n", "error: interrupted. Nothing was written.\n")
