"""The specification of the hooks: typed, documented, each with an example that is a whole plugin and works."""

import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import click
import pluggy
import pytest
import torch
from modelmerger import (
    FileCheckpoint,
    FilesBeside,
    Layout,
    LoadContext,
    MergeConfig,
    MergeError,
    ModelReference,
    OutputTensor,
    Problem,
    Sample,
    TensorInfo,
    Traits,
    ValidationReport,
    merge,
)
from modelmerger.hooks.markers import PROJECT
from modelmerger.hooks.specs import HOOKS, SPECIFICATIONS
from modelmerger.testing import MemoryCheckpoint

FIRST_RESULT = {
    "explain_option",
    "read_config",
    "expand_model",
    "locate_model",
    "load_model",
    "compose_model",
    "find_coefficients",
    "choose_view",
    "count_rounds",
    "choose_ranges",
    "measure_tensor",
    "join_measurements",
    "merge_tensor",
    "merge_cores",
    "split_tensor",
    "finish_tensor",
    "wants_finish",
    "save_model",
    "run_slices",
    "return_model",
    "name_saved_tensors",
    "materialise_model",
    "provide_texts",
    "score_labels",
}


def example(hook: str) -> ModuleType:
    """The module that the docstring of a hook holds."""
    (block,) = re.findall(r"```python\n(.*?)```", inspect.getdoc(HOOKS[hook]) or "", re.DOTALL)
    module = ModuleType(f"example_of_{hook}")
    exec(compile(block, module.__name__, "exec"), vars(module))
    return module


def registered(plugin: object) -> pluggy.PluginManager:
    manager = pluggy.PluginManager(PROJECT)
    for specification in SPECIFICATIONS:
        manager.add_hookspecs(specification)
    manager.register(plugin)
    manager.check_pending()
    return manager


@pytest.mark.parametrize("hook", HOOKS)
def test_the_docstring_of_every_hook_has_one_example_which_is_a_plugin_with_that_hook(hook: str) -> None:
    languages = re.findall(r"^```(\w+)$", inspect.getdoc(HOOKS[hook]) or "", re.MULTILINE)
    assert languages == ["python"]
    module = example(hook)
    assert inspect.isfunction(getattr(module, hook))
    manager = registered(module)
    assert hook in [caller.name for caller in manager.get_hookcallers(module) or ()]


def test_every_example_is_called_by_a_test_of_its_own() -> None:
    called = re.findall(r"\b(?:hook|example)\(\"(\w+)\"\)", Path(__file__).read_text())
    assert [name for name in HOOKS if name not in called] == []


def test_every_hook_has_a_section_in_the_documentation() -> None:
    """In the same order, each with its arguments."""
    page = Path(__file__).parents[3] / "docs/reference/hooks.md"
    text = page.read_text()
    assert re.findall(r"^### ([a-z_]+)$", text, re.MULTILINE) == list(HOOKS)
    expected = {name: ", ".join(inspect.signature(hook).parameters) for name, hook in HOOKS.items()}
    assert dict(re.findall(r"^### [a-z_]+\n\n`([a-z_]+)\((.*?)\)`", text, re.MULTILINE)) == expected


@pytest.mark.parametrize("hook", HOOKS)
def test_every_argument_and_result_is_typed_and_none_has_a_default(hook: str) -> None:
    signature = inspect.signature(HOOKS[hook])
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter
        assert parameter.default is inspect.Parameter.empty, parameter


@pytest.mark.parametrize("hook", HOOKS)
def test_one_answer_is_taken_where_one_makes_sense(hook: str) -> None:
    assert HOOKS[hook].modelmerger_spec["firstresult"] is (hook in FIRST_RESULT)


@pytest.mark.parametrize("hook", HOOKS)
def test_the_docstring_says_what_it_is_in_one_line_first(hook: str) -> None:
    first, *_ = (inspect.getdoc(HOOKS[hook]) or "").splitlines()
    assert 20 < len(first) <= 120
    assert re.search(r"[.,:]$", first), first


def test_a_hook_that_is_misspelt_is_refused() -> None:
    module = ModuleType("misspelt")
    exec("from modelmerger import hookimpl\n@hookimpl\ndef merge_tensors(tensors): ...", vars(module))
    with pytest.raises(pluggy.PluginValidationError, match="merge_tensors"):
        registered(module)


def hook(name: str) -> Any:
    return getattr(example(name), name)


def test_the_example_command_counts_the_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "merge.yaml"
    config.write_text("strategy: weighted\nmodels: [{path: ./a}, {path: ./b}]\n")
    cli = click.Group()
    hook("add_commands")(cli)
    assert list(cli.commands) == ["count-models"]
    cli.main(["count-models", str(config)], standalone_mode=False)
    assert capsys.readouterr().out == "2\n"


def test_the_example_of_options_knows_the_old_script() -> None:
    assert "--check-first is of the old script" in hook("explain_option")("--check-first")
    assert hook("explain_option")("--check-last") is None


def test_the_example_reader_reads_lists_alone() -> None:
    module = example("read_config")
    found = module.read_config("./a 0.5\n\n./b 2\n", "models.list", module.ReadOptions(strategy="slerp"))
    assert found.config == {
        "strategy": "slerp",
        "models": [{"path": "./a", "weight": 0.5}, {"path": "./b", "weight": 2.0}],
    }
    assert [note.severity for note in found.notes] == ["note"]
    assert module.read_config("strategy: weighted", "merge.yaml", module.ReadOptions()) is None


def test_the_example_explanation_says_what_a_key_is_called_by_now() -> None:
    told = hook("explain_config")({"origin": "x"}, [Problem("unknown key 'origin'", "config")])
    assert told == [Problem("unknown key 'origin' (base_model by now)", "config")]
    assert hook("explain_config")({}, [Problem("unknown key 'x'")]) is None


def test_the_example_expansion_knows_a_folder_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
    scandir = os.scandir
    monkeypatch.setattr(
        os, "scandir", lambda path: scandir(tmp_path) if path == "/models/of-the-team" else scandir(path)
    )
    found = hook("expand_model")(ModelReference("team:chats", "", "models[0].path"))
    assert found == {str(tmp_path / "a"): 0.5, str(tmp_path / "b"): 0.5}
    assert hook("expand_model")(ModelReference("./chats", "", "models[0].path")) is None


def test_the_example_check_of_a_config_counts_the_models() -> None:
    settings = [SimpleNamespace(models=[None] * count) for count in (8, 9)]
    assert [len(list(hook("check_config")(given))) for given in settings] == [0, 1]


def test_the_example_locator_knows_names_of_its_own_kind() -> None:
    assert hook("locate_model")(ModelReference("team:chat", "c", "models[0].path")).directory == Path(
        "/models/of-the-team/chat"
    )
    assert hook("locate_model")(ModelReference("./chat", "c", "models[0].path")) is None


def test_the_example_loader_opens_a_file_of_its_own_kind(tmp_path: Path) -> None:
    path = tmp_path / "vector.f32"
    path.write_bytes(torch.arange(5, dtype=torch.float32).numpy().tobytes())
    context = LoadContext()
    opened = hook("load_model")(ModelReference(str(path), "v", "models[0].path"), context)
    assert isinstance(opened, FileCheckpoint)
    buffer = bytearray(8)
    opened.read("vector", 3, 5, memoryview(buffer))
    assert torch.frombuffer(buffer, dtype=torch.float32).tolist() == [3.0, 4.0]
    assert hook("load_model")(ModelReference("model.bin", "m", "models[1].path"), context) is None


def test_the_example_view_leaves_projectors_out() -> None:
    model = MemoryCheckpoint("m", {"w": torch.zeros(1), "projector.w": torch.zeros(1)})
    (view,) = hook("view_models")([model])
    assert (list(view.tensors), view.name) == (["w"], "m")


def test_the_example_voice_says_in_the_config_what_was_merged() -> None:
    settings = SimpleNamespace(models=[SimpleNamespace(name="a"), SimpleNamespace(name="b")])
    adjusted = hook("adjust_config")("config.json", {"x": 1}, settings)
    assert adjusted == {"x": 1, "merged_from": ["a", "b"]}
    assert hook("adjust_config")("generation_config.json", {}, settings) is None


def test_the_example_check_of_the_output_misses_an_lm_head() -> None:
    named = [SimpleNamespace(name=name) for name in ("lm_head.weight", "model.norm.weight")]
    assert list(hook("check_output")(SimpleNamespace(tensors=named))) == []
    (problem,) = hook("check_output")(SimpleNamespace(tensors=named[1:]))
    assert problem.severity == "warning"


def test_the_example_figures_are_words_of_the_texts_that_plugins_have() -> None:
    module = example("measure_output")
    (inquiry,) = module.measure_output(lambda: {"formal": ["How do you do?", "Fine."], "casual": ["Hi"]})
    assert inquiry.function == f"{module.__name__}:counted"
    (figures,) = module.counted(inquiry.argument)
    assert figures.rows == {"our texts": {"formal": 5, "casual": 1}}


def test_the_example_check_warns_about_a_single_tensor() -> None:
    one = SimpleNamespace(tensors={"a": None}, name="lonely")
    many = SimpleNamespace(tensors={"a": None, "b": None}, name="whole")
    (problem,) = hook("check_compatibility")([many, one])
    assert isinstance(problem, Problem)
    assert (problem.where, problem.severity) == ("lonely", "warning")


def test_the_example_composition_has_the_embedding_of_the_second_model() -> None:
    models = [
        MemoryCheckpoint(name, {"embed": torch.ones(2) * i, "w": torch.ones(3) * i}) for i, name in enumerate("ab")
    ]
    composed = hook("compose_model")(models)
    assert composed.checkpoint.selected == {"embed": (models[1], "embed"), "w": (models[0], "w")}
    assert (composed.checkpoint.tensors["w"], composed.writes) == (TensorInfo("F32", (3,)), "model")


def test_the_example_strategies_merge() -> None:
    module = example("find_coefficients")
    assert isinstance(module.traits, Traits)
    assert module.find_coefficients([1.0, 2.0]) == [1 / 5, 4 / 5]
    tensors = [torch.tensor([1.0, 5.0]), torch.tensor([2.0, 4.0]), torch.tensor([9.0, -1.0])]
    assert hook("merge_tensor")(tensors).tolist() == [2.0, 4.0]
    measure = hook("measure_tensor")
    sums = measure(tensors, 0, [], (2,))
    squares = measure(tensors, 1, [sums], (2,))
    assert (sums.tolist(), squares.tolist()) == ([6.0, 6.0, 8.0], [8.0, 2.0, 50.0])
    shares = (1 / squares / (1 / squares).sum()).tolist()
    expected = [sum(share * float(t[i]) for share, t in zip(shares, tensors, strict=True)) for i in range(2)]
    merged = example("measure_tensor").merge_tensor(tensors, [sums, squares])
    assert merged.tolist() == pytest.approx(expected, rel=1e-6)
    merged = torch.tensor([-1.0, 2.0, -0.5])
    assert hook("finish_tensor")(merged) == {"negative values set to zero": 2}
    assert merged.tolist() == [0.0, 2.0, 0.0]
    assert [hook("wants_finish")(SimpleNamespace(clamp=clamp)) for clamp in (True, False)] == [True, False]
    settings = SimpleNamespace(options=SimpleNamespace(verbose=True))
    assert hook("wants_slices")(settings) is True
    assert hook("observe_slice")(torch.tensor([3.0, 4.0])) == {"squared norm": 25.0}


def test_the_example_of_a_strategy_with_two_views_gives_matrices_the_mean_of_their_singular_values() -> None:
    module = example("choose_view")
    assert [module.choose_view(shape) for shape in ((3, 2), (3,), (2, 3, 4), ())] == ["whole", *["linear"] * 3]
    assert module.find_coefficients([1.0, 3.0]) == [0.25, 0.75]
    tensors = [torch.diag(torch.tensor(values)) for values in ([3.0, 1.0], [5.0, 2.0])]
    torch.testing.assert_close(module.merge_tensor(tensors), torch.diag(torch.tensor([4.0, 1.5])))
    turned = torch.tensor([[0.0, -2.0], [2.0, 0.0]])
    merged = module.merge_tensor([torch.eye(2), turned])
    torch.testing.assert_close(torch.linalg.svdvals(merged), torch.tensor([1.5, 1.5]))


def test_the_example_that_merges_cores_does_what_it_does_with_matrices() -> None:
    module = example("merge_cores")
    core = torch.diag(torch.tensor([4.0, 3.0, 1.0]))
    left, right = (torch.linalg.qr(torch.randn(7, 3)).Q for _ in range(2))
    base = torch.randn(7, 7)
    merged = module.merge_tensor([base + left @ core @ right.T, base]) - base
    torch.testing.assert_close(merged, left @ module.merge_cores([core]) @ right.T, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(module.merge_cores([core]), torch.diag(torch.tensor([2.0, 2.0, 1.0])))


def test_the_example_that_splits_its_merge_has_it_at_any_weights() -> None:
    module = example("split_tensor")
    tensors = [torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)).double() for seed in range(3)]
    tensors[0][2, 1] += 40.0
    options = module.Options(scale=0.5)
    terms = module.split_tensor(tensors)
    assert terms.follows == ["scale"]
    for weights in ([1.0, 1.0], [0.3, -2.0]):
        coefficients = terms.weigh(weights, [None, None], options)
        merged = tensors[-1] + sum(c * term for c, term in zip(coefficients, terms.terms, strict=True))
        torch.testing.assert_close(module.merge_tensor(tensors, weights, options), merged)
    assert float((tensors[0] - tensors[-1]).abs().max()) > float(terms.terms[0].abs().max())


def test_the_example_that_counts_rounds_keeps_the_norm_of_the_first_model() -> None:
    module = example("count_rounds")
    tensors = [torch.tensor([3.0, 4.0]), torch.tensor([0.0, 8.0])]
    for keep_norm, rounds, expected in ((True, 1, 5.0), (False, 0, 153**0.5)):
        options = module.Options(keep_norm=keep_norm)
        assert module.count_rounds(options) == rounds
        measured = [module.measure_tensor(tensors)] * rounds
        assert float(module.merge_tensor(tensors, measured, options).norm()) == pytest.approx(expected)


def test_the_example_that_samples_weighs_models_by_their_size() -> None:
    module = example("choose_ranges")
    assert module.choose_ranges((3, 1400)) == [(0, 256), (4096, 4200)]
    tensors = [torch.tensor([1.0, -1.0]), torch.tensor([3.0, 3.0])]
    merged = module.merge_tensor(tensors, [module.measure_tensor(tensors)])
    assert merged.tolist() == pytest.approx([0.75 + 0.25 * 3, -0.75 + 0.25 * 3])


def test_the_example_that_joins_bounds_the_largest_number() -> None:
    module = example("join_measurements")
    tensors = [torch.tensor([1.0, -2.0]), torch.tensor([8.0, 1.0])]
    parts = [module.measure_tensor([tensor[i : i + 1] for tensor in tensors]) for i in range(2)]
    assert module.join_measurements(parts).tolist() == [2.0, 8.0]
    assert module.merge_tensor(tensors, [module.join_measurements(parts)]).tolist() == [1.5, -0.875]


def test_the_example_of_folders_puts_layers_that_guess_into_one() -> None:
    assert hook("place_tensors")() == {"mtp.": "guessing"}


def test_the_example_layout_places_every_tensor() -> None:
    tensors = [OutputTensor("a", "F32", (2,), 8), OutputTensor("b", "BF16", (3,), 6)]
    layout = hook("save_model")(tensors)
    assert isinstance(layout, Layout)
    assert [(file.name, file.size) for file in layout.files] == [("0.raw", 8), ("1.raw", 6)]
    assert layout.documents == {"names.txt": b"a\nb"}


def test_the_example_executor_runs_every_unit_in_order() -> None:
    tasks, done = iter([1, 2, 3, None]), []
    worker = SimpleNamespace(do=lambda task: -task)
    work = SimpleNamespace(take=lambda: next(tasks), local=lambda: worker, done=done.append)
    assert hook("run_slices")(work) is True
    assert done == [-1, -2, -3]


def test_the_example_sidecar_lists_the_tensors() -> None:
    plan = SimpleNamespace(tensors=[SimpleNamespace(name="a"), SimpleNamespace(name="b")])
    assert hook("write_sidecars")(plan) == {"TENSORS": b"a\nb"}


def test_the_example_of_files_finds_what_is_left_behind() -> None:
    (problem,) = hook("check_files")(FilesBeside(left={"a": ["ETHICS.md", "x"], "b": ["x"]}))
    assert (problem.where, problem.severity) == ("a/ETHICS.md", "error")
    assert list(hook("check_files")(FilesBeside(copied={"ETHICS.md": "a"}))) == []


def test_the_example_texts_and_scorer_answer() -> None:
    assert hook("provide_texts")("prompting").keys() == {"formal", "casual"}
    assert hook("provide_texts")("scoring") is None
    scores = hook("score_labels")(["Yours sincerely, A."])
    assert (scores.best_labels(), scores.stated) == (["formal"], "never measured")


def test_the_example_validator_runs_where_there_are_prompts() -> None:
    assert [hook("wants_validation")(SimpleNamespace(test_prompts=given)) for given in ((), ("x",))] == [False, True]


def test_the_example_of_a_returned_model_comes_with_its_text(tmp_path: Path) -> None:
    assert hook("return_model")(tmp_path, tmp_path, str) is None
    (tmp_path / "prompt.txt").write_text("hello")
    assert hook("return_model")(tmp_path, "base", str) == ("base", "hello")


def test_the_example_of_names_takes_the_teams_wrapper_off() -> None:
    assert hook("name_saved_tensors")(["a.traced.w", "b"]) == {"a.traced.w": "a.w", "b": "b"}


def test_the_example_of_a_materialised_model_copies_the_inner_folder(tmp_path: Path) -> None:
    inner, target = tmp_path / "model/export", tmp_path / "target"
    assert hook("materialise_model")(inner.parent, target) is None
    inner.mkdir(parents=True)
    (inner / "config.json").write_text("{}")
    assert hook("materialise_model")(inner.parent, None) == inner.parent
    assert hook("materialise_model")(inner.parent, target) == target
    assert (target / "config.json").exists()


def test_the_example_validator_finds_the_longest_answer() -> None:
    answers = {
        "gulf": [SimpleNamespace(ids=(1, 2)), SimpleNamespace(ids=(1,))],
        "msa": [SimpleNamespace(ids=(1, 2, 3))],
    }
    (finding,) = hook("validate_model")(SimpleNamespace(answers=lambda: answers))
    assert (finding.metric, finding.value, finding.evidence) == ("longest_answer", 3, "3 answers")
    assert example("validate_model").metrics == {"longest_answer": "lower"}


def test_the_example_companion_escapes_what_models_answered() -> None:
    sample = Sample(prompt="x", answer="<script>", model="merged")
    report = ValidationReport(directory="merged", validators={}, settings={}, findings=[], samples=[sample])
    assert hook("name_companions")() == ["report.html"]
    (page,) = hook("write_companions")(report).values()
    assert b"&lt;script&gt;" in page
    assert b"<script>" not in page


@pytest.mark.parametrize("name", ["find_coefficients", "merge_tensor"])
def test_the_example_of_a_strategy_merges_models(
    name: str, distribution: Callable[..., Path], models: SimpleNamespace
) -> None:
    from safetensors.torch import load_file

    from tests.core.plugging import install

    (source,) = re.findall(r"```python\n(.*?)```", inspect.getdoc(HOOKS[name]) or "", re.DOTALL)
    install(distribution, [("strategy", "from_the_docs", source)])
    paths = [models.a, models.b, models.base]
    merge(
        MergeConfig(strategy="from_the_docs", models=[{"path": str(p)} for p in paths], output_path=str(models.output))
    )
    merged = load_file(models.output / "model.safetensors")
    for tensor in merged:
        inputs = torch.stack([models.tensors[key][tensor].double() for key in ("a", "b", "base")])
        expected = inputs.mean(dim=0) if name == "find_coefficients" else inputs.median(dim=0).values
        torch.testing.assert_close(merged[tensor].double(), expected, rtol=2**-8, atol=0)


def test_errors_of_the_public_face_are_one_family() -> None:
    import modelmerger

    kinds = [getattr(modelmerger, name) for name in modelmerger.__all__ if name.endswith("Error")]
    assert len(kinds) >= 8
    assert all(issubclass(kind, MergeError) for kind in kinds)
