"""Searches that only try vectors, by the losses of lines."""

from modelmerger_plugins.tune.asked import Asked
from modelmerger_plugins.tune.evaluating import Evaluator
from modelmerger_plugins.tune.live.black_box import by_trials
from modelmerger_plugins.tune.live.evaluator import Live
from modelmerger_plugins.tune.live.jobs import bench
from modelmerger_plugins.tune.live.parts import in_parts
from modelmerger_plugins.tune.opened import Opened
from modelmerger_plugins.tune.searching import Task
from modelmerger_plugins.tune.texts import Texts


def by_losses(method: str, task: Task, evaluator: Evaluator, opened: Opened, texts: Texts, asked: Asked) -> None:
    """Tries as many vectors as there are steps."""
    live = evaluator if isinstance(evaluator, Live) else Live(opened)
    with bench(opened, texts, asked.jobs, in_parts(task.goal.lines, live.begun)) as at:
        by_trials(task, method, at)
