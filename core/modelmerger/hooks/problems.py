"""Problems that plugins find."""

from collections.abc import Container
from typing import Any

from modelmerger.hooks.answers import is_list_of
from modelmerger.hooks.calls import Calls
from modelmerger.values.errors import Problem


def gather_problems(calls: Calls, hook: str, among: Container[str] | None = None, **arguments: Any) -> list[Problem]:
    """The answers of all plugins to a hook that asks for problems. among: the plugins that are asked; None: all.

    Raises `PluginError`.
    """
    answers = calls.ask_each(hook, among=among, **arguments)
    for name, problems in answers:
        if not is_list_of(Problem, problems or ()):
            raise calls.wrong_answer(hook, problems, "Problems", name)
    return [problem for _, problems in answers for problem in problems or ()]
