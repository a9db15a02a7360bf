"""What is installed is known from metadata alone; a plugin is imported when it is named, and its failings are named after it."""

import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modelmerger import ConfigError, MergeConfig, ModelMerger, PluginError
from modelmerger.hooks.registry import ALLOW, DISABLE, Registry

from tests.core.plugging import BUILT_IN_STRATEGIES, WEIGHTS_SQUARED, install

Distribution = Callable[..., Path]
OUR_PACKAGES = ("modelmerger_strategies.", "modelmerger_validators.", "modelmerger_plugins.")
BROKEN = "import modelmerger_no_such_module"
LISTENING = """
from modelmerger import Problem, hookimpl

@hookimpl
def check_compatibility(checkpoints):
    return [Problem(f"heard of {len(checkpoints)} models", severity="note")]
"""


def merge_by(strategy: str) -> dict[str, Any]:
    return {"strategy": strategy, "models": [{"path": "./a"}, {"path": "./b"}]}


def strategies(environment: dict[str, str] | None = None) -> list[str]:
    return Registry.installed(environment or {}).names("strategy")


def modules_of(names: Iterable[str]) -> set[str]:
    return set(names) & set(sys.modules)


def test_the_built_ins_are_found_as_everything_else_is() -> None:
    registry = Registry.installed({})
    built_in = [provider for provider in registry.providers if provider.built_in]
    assert [p.name for p in built_in if p.kind == "strategy"] == BUILT_IN_STRATEGIES
    assert {p.distribution for p in built_in} == {"modelmerger"}
    assert all(provider.target.startswith(OUR_PACKAGES) for provider in built_in)


def test_what_is_installed_or_removed_later_is_seen(distribution: Distribution) -> None:
    """In a folder of the import path too that was there before."""
    site = distribution("acme-merge", "1.0", "[modelmerger.strategies]\ntrims = acme_trims\n")
    assert "trims" in strategies()
    shutil.copytree(site / "acme_merge-1.0.dist-info", site / "acme_more-2.0.dist-info")
    (site / "acme_more-2.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: acme-more\nVersion: 2.0\n")
    (site / "acme_more-2.0.dist-info/entry_points.txt").write_text("[modelmerger.strategies]\nmore = acme_more\n")
    os.utime(site, ns=(1, 1))  # as it would be a moment later, by the clock of any file system
    assert {"trims", "more"} < set(strategies())
    shutil.rmtree(site / "acme_merge-1.0.dist-info")
    os.utime(site, ns=(2, 2))
    assert {"trims", "more"} & set(strategies()) == {"more"}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "path", [place for place in sys.path if place != str(site)])
        assert "more" not in strategies()


def test_discovery_imports_nothing(distribution: Distribution) -> None:
    """D2"""
    modules = install(
        distribution, [("strategy", "trims", BROKEN), ("validator", "bleu", BROKEN), ("plugin", "loud", BROKEN)]
    )
    registry = Registry.installed({})
    assert {("strategy", "trims"), ("validator", "bleu"), ("plugin", "loud")} <= {
        (p.kind, p.name) for p in registry.providers
    }
    (trims,) = [provider for provider in registry.providers if provider.name == "trims"]
    assert (trims.source, trims.built_in) == ("acme-merge 1.0", False)
    assert not modules_of(modules)


def test_a_strategy_is_imported_when_it_is_named_and_no_other(distribution: Distribution) -> None:
    """D2"""
    named, other, validator = install(
        distribution,
        [("strategy", "trims", WEIGHTS_SQUARED), ("strategy", "dare", BROKEN), ("validator", "bleu", BROKEN)],
    )
    MergeConfig(**merge_by("weighted"))
    assert not modules_of([named, other, validator])
    MergeConfig(**merge_by("trims"))
    assert modules_of([named, other, validator]) == {named}


def test_a_plugin_of_every_merge_is_imported_and_asked_in_every_merge(
    distribution: Distribution, config: dict[str, Any]
) -> None:
    (module,) = install(distribution, [("plugin", "listener", LISTENING)])
    merger = ModelMerger(MergeConfig(**config))
    assert modules_of([module]) == {module}
    assert "heard of 2 models" in [note.message for note in merger.check_compatibility()]


def test_an_unknown_strategy_gets_a_suggestion_and_the_list(distribution: Distribution) -> None:
    install(distribution, [("strategy", "trims", WEIGHTS_SQUARED)])
    with pytest.raises(ConfigError) as caught:
        Registry.installed({}).find("strategy", "trim")
    assert str(caught.value) == "no strategy is named 'trim'; did you mean 'trims'?"


def test_a_name_like_none_gets_the_list_alone() -> None:
    registry = Registry.installed({ALLOW: ""})
    with pytest.raises(ConfigError) as caught:
        registry.find("strategy", "qqqq")
    assert str(caught.value).startswith("no strategy is named 'qqqq' (installed: arcee_fusion, boost, breadcrumbs, ")
    with pytest.raises(ConfigError, match=r"no validator is named 'bleu' \(installed: coherence, .*\)"):
        registry.find("validator", "bleu")


def test_a_name_of_two_distributions_is_an_error_that_names_both(distribution: Distribution) -> None:
    """D2"""
    modules = install(distribution, [("strategy", "trims", WEIGHTS_SQUARED)])
    modules += install(distribution, [("strategy", "trims", WEIGHTS_SQUARED)], "other-merge", "2.1")
    with pytest.raises(ConfigError) as caught:
        MergeConfig(**merge_by("trims"))
    assert str(caught.value) == (
        "strategy 'trims' is provided twice: by acme-merge 1.0 and by other-merge 2.1; "
        f"uninstall one of them or set {DISABLE}=acme-merge."
    )
    assert not modules_of(modules)
    MergeConfig(**merge_by("weighted"))


@pytest.mark.parametrize("name", BUILT_IN_STRATEGIES)
def test_the_name_of_a_built_in_cannot_be_taken(
    distribution: Distribution, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """D2"""
    modules = install(distribution, [("strategy", name, BROKEN)])
    with pytest.raises(ConfigError) as caught:
        Registry.installed({}).find("strategy", name)
    assert str(caught.value).startswith(
        f"strategy '{name}' is provided twice: by acme-merge 1.0 and by modelmerger 0.1.0; "
    )
    remedy = str(caught.value).split(" set ")[1].rstrip(".")
    assert remedy == f"{DISABLE}=acme-merge"
    assert Registry.installed(dict([remedy.split("=")])).find("strategy", name).built_in
    assert not modules_of(modules)


def test_the_name_of_a_built_in_plugin_cannot_be_taken_either(distribution: Distribution) -> None:
    """D2"""
    (module,) = install(distribution, [("plugin", "tokenizer", LISTENING)])
    with pytest.raises(
        ConfigError, match=r"plugin 'tokenizer' is provided twice: by acme-merge 1.0 and by modelmerger"
    ):
        MergeConfig(**merge_by("weighted"))
    assert not modules_of([module])


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (BROKEN, "ModuleNotFoundError: No module named 'modelmerger_no_such_module'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def broken(:", "SyntaxError: invalid syntax"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt: "),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_named_with_the_reason(
    distribution: Distribution, source: str, reason: str
) -> None:
    """D1"""
    install(distribution, [("strategy", "trims", source)])
    with pytest.raises(PluginError) as caught:
        MergeConfig(**merge_by("trims"))
    assert str(caught.value).startswith(f"strategy 'trims' from acme-merge 1.0 could not be imported: {reason}")


def test_an_entry_point_that_leads_nowhere_is_named(distribution: Distribution) -> None:
    distribution("acme-merge", "1.0", "[modelmerger.strategies]\ntrims = acme_nowhere:strategy\n")
    with pytest.raises(
        PluginError, match=r"strategy 'trims' from acme-merge 1.0 could not be imported: ModuleNotFoundError"
    ):
        MergeConfig(**merge_by("trims"))


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, {"trims", "dare"}),
        ({ALLOW: ""}, set()),
        ({ALLOW: "nothing"}, set()),
        ({ALLOW: "trims"}, {"trims"}),
        ({ALLOW: " trims , dare "}, {"trims", "dare"}),
        ({ALLOW: "acme-merge"}, {"trims"}),
        ({ALLOW: "acme-merge,other-merge"}, {"trims", "dare"}),
        ({DISABLE: ""}, {"trims", "dare"}),
        ({DISABLE: "trims"}, {"dare"}),
        ({DISABLE: "acme-merge,other-merge"}, set()),
        ({ALLOW: "trims,dare", DISABLE: "dare"}, {"trims"}),
    ],
)
def test_the_environment_lets_plugins_of_others_in_and_keeps_them_out(
    distribution: Distribution, environment: dict[str, str], found: set[str]
) -> None:
    modules = install(distribution, [("strategy", "trims", BROKEN)])
    modules += install(distribution, [("strategy", "dare", BROKEN)], "other-merge")
    assert strategies(environment) == sorted({*BUILT_IN_STRATEGIES, *found})
    assert not modules_of(modules)


def test_the_allow_list_does_not_have_to_name_built_ins_and_disabling_does_reach_them() -> None:
    assert strategies({ALLOW: "trims"}) == BUILT_IN_STRATEGIES
    registry = Registry.installed({DISABLE: "slerp,licenses"})
    assert "slerp" not in registry.names("strategy")
    assert "licenses" not in registry.names("plugin")


def test_what_is_switched_off_says_by_what(distribution: Distribution) -> None:
    install(distribution, [("strategy", "trims", BROKEN)])
    for environment, reason in (
        ({DISABLE: "trims"}, f"{DISABLE} names it"),
        ({ALLOW: ""}, f"{ALLOW} does not name it"),
    ):
        with pytest.raises(ConfigError) as caught:
            Registry.installed(environment).find("strategy", "trims")
        assert str(caught.value) == f"strategy 'trims' from acme-merge 1.0 is switched off: {reason}."


def test_a_broken_plugin_that_is_switched_off_is_not_imported(
    distribution: Distribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D2"""
    (module,) = install(distribution, [("plugin", "loud", BROKEN)])
    with pytest.raises(PluginError, match=r"plugin 'loud' from acme-merge 1.0 could not be imported"):
        MergeConfig(**merge_by("weighted"))
    for variable, value in ((DISABLE, "loud"), (DISABLE, "acme-merge"), (ALLOW, "")):
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            MergeConfig(**merge_by("weighted"))
    assert not modules_of([module])


def test_a_broken_strategy_does_not_disturb_a_merge_by_another(
    distribution: Distribution, command: Callable[..., SimpleNamespace], config: dict[str, Any], models: SimpleNamespace
) -> None:
    install(distribution, [("strategy", "trims", BROKEN), ("validator", "bleu", BROKEN)])
    path = models.folder / "merge.yaml"
    path.write_text(MergeConfig(**config).to_yaml())
    result = command("merge", path, "--set", "strategy=trims")
    assert (result.status, result.out) == (7, "")
    assert result.err == (
        "error: strategy 'trims' from acme-merge 1.0 could not be imported: "
        "ModuleNotFoundError: No module named 'modelmerger_no_such_module'\n"
    )
    assert not models.output.exists()
    assert command("merge", path, "--set", "strategy=trim").status == 2
    assert command("merge", path).status == 0
    assert models.output.exists()
