"""What must be known before anything is published: whether it is asked, and what becomes of a merge that is refused."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from modelmerger.hooks.inquiries.asking import Asked
from modelmerger.output.staging import Staging
from modelmerger.output.system_errors import output_errors
from modelmerger.planning.prepared import Prepared
from modelmerger.validation.texts import known_texts
from modelmerger.values.errors import ModelCompatibilityError
from modelmerger.values.plan import MergePlan
from modelmerger.values.settings import Settings
from modelmerger.values.work.inquiry import Inquiry

LARGE = 4 * 10**9
"""Bytes of an output from which on a few seconds of another process are little beside the merge."""
SECONDS = 60
"""How long the figures of a plugin may take."""


def is_thorough(settings: Settings, plan: MergePlan, *, loads: bool) -> bool:
    """Whether what is costly to find out about the output is found out. loads: whether this run will load it."""
    wanted = settings.options.check_loading
    return loads or plan.bytes_written > LARGE if wanted == "auto" else wanted


def asking(settings: Settings, inquiries: Sequence[Inquiry]) -> Asked:
    """The inquiries of a merge, asked while the context lasts. They must be answered if `check_loading` is true."""
    forced = settings.options.check_loading is True
    return Asked(inquiries, "error" if forced else "warning", strict=settings.strict)


def measuring(ready: Prepared) -> Asked:
    """The inquiries of plugins into figures, asked while the context lasts. A merge does without those that fail."""
    inquiries = ready.hooks.output.measure_output(
        partial(known_texts, ready.hooks.validation.provide_texts), ready.plan, ready.checkpoints, ready.settings
    )
    return Asked(inquiries, "note", seconds=SECONDS)


@contextmanager
def removed_if_refused(staging: Staging) -> Iterator[None]:
    """Leaves nothing staged of a merge that an answer forbids, since no later run could publish it."""
    try:
        yield
    except ModelCompatibilityError:
        with output_errors(staging.root):
            staging.directory.remove()
        raise
