"""The plugins of a run are registered with a manager of its own."""

from modelmerger.hooks.assembly import Hooks, assemble, plugins_of
from modelmerger.hooks.registry import ALLOW, Registry


def strategies_in(hooks: Hooks) -> list[str]:
    return [name for name, _ in hooks.strategy.calls.manager.list_name_plugin() if name.startswith("strategy")]


def test_two_runs_share_no_plugin_manager() -> None:
    registry = Registry.installed({ALLOW: ""})
    first, second = (assemble(plugins_of(registry, name)) for name in ("sequential", "slerp"))
    assert first.strategy.calls.manager is not second.strategy.calls.manager
    assert (strategies_in(first), strategies_in(second)) == (["strategy sequential"], ["strategy slerp"])
    first.strategy.calls.manager.unregister(name="strategy sequential")
    again = assemble(plugins_of(registry, "sequential"))
    assert again.strategy.find_coefficients([1.0, 0.25], [None, None], None) == (0.75, 0.25)
