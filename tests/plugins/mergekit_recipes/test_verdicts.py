"""What is imitated, what is mended with a warning, and what is refused: recipe in, config and sentences out."""

from typing import Any

import pytest

from tests.plugins.mergekit_recipes.reading import read, refused, warnings

TWO = "models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 2}}]\n"
BASED = f"base_model: c\n{TWO}"
SLERP = "merge_method: slerp\nbase_model: b\nmodels: [{model: a}]\n"
LAYER, REST = "*.[0-9]*.*", "default"


def factor(text: str) -> Any:
    """What t comes to."""
    return read(f"{SLERP}parameters: {{t: {text}}}\n")[0]["options"]["interpolation_factor"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("0.3", 0.3),
        ("'0.3'", 0.3),
        ("'1e-8'", 1e-8),
        ("yes", 1.0),
        ("[0.3]", 0.3),
        ("[0, 0.5, 0]", [0.0, 0.5, 0.0]),
        ("[0.2, 0.8]", {LAYER: [0.2, 0.8], REST: 0.2}),
        ("[{filter: mlp, value: 0.1}, {value: 0.5}]", {"*mlp*": 0.1, REST: 0.5}),
        ("{filter: '*', value: 0.1}", 0.1),
        ("[{filter: '', value: 0.1}]", 0.1),
        ("[{filter: mlp, value: [0, 1]}, {value: 0.5}]", {"*mlp*": [0.0, 1.0], REST: 0.5}),
        ("[{filter: norm, value: [0, 1]}, {value: 0.5}]", {"*.[0-9]*norm*": [0.0, 1.0], "*norm*": 0.0, REST: 0.5}),
        ("[{filter: lm_head, value: [0, 1]}, {value: 0.5}]", {"*lm_head*": 0.0, REST: 0.5}),
        ("[{filter: layers.1., value: 0.1}, {value: 0.5}]", {"*layers.1.*": 0.1, REST: 0.5}),
        ("[{filter: 'a[0]*', value: 0.1}, {value: 0.5}]", {"*a[[]0][*]*": 0.1, REST: 0.5}),
        ("[{filter: mlp, value: 0.1}, {filter: mlp, value: 0.9}, {value: 0.5}]", {"*mlp*": 0.1, REST: 0.5}),
    ],
)
def test_values_gradients_and_filters(given: str, wanted: Any) -> None:
    assert factor(given) == wanted


def test_the_innermost_level_decides_and_what_no_filter_is_for_goes_outwards() -> None:
    config, _ = read(
        "merge_method: linear\nslices:\n"
        "- sources:\n"
        "  - {model: a, layer_range: [0, 2], parameters: {weight: [{filter: mlp, value: 1}]}}\n"
        "  - {model: b, layer_range: [0, 2]}\n"
        "  - {model: c, layer_range: [0, 2], parameters: {weight: 4}}\n"
        "  parameters: {weight: [{filter: attn, value: 2}]}\n"
        "parameters: {weight: 3}\n"
    )
    assert [model["weight"] for model in config["models"]] == [
        {"*mlp*": 1.0, "*attn*": 2.0, REST: 3.0},
        {"*attn*": 2.0, REST: 3.0},
        4.0,
    ]


def test_a_module_lies_between_slice_and_whole() -> None:
    source = "{sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 2]}]}"
    text = f"merge_method: linear\nmodules: {{default: {{slices: [{source}], parameters: {{weight: 2}}}}}}\n"
    config, _ = read(text + "parameters: {weight: 3, normalize: false}\n")
    assert [model["weight"] for model in config["models"]] == [2.0, 2.0]
    assert config["options"]["normalize_weights"] is False


def test_a_filter_behind_a_value_for_all_is_named() -> None:
    _, notes = read(f"{SLERP}parameters: {{t: [{{value: 0.5}}, {{filter: mlp, value: 1}}]}}\n")
    assert warnings(notes) == [
        "parameters.t: the filter 'mlp' stands behind a value for all tensors, so it never decides. Put that value last"
    ]


def test_a_gradient_whose_ends_differ_is_a_warning_where_something_lies_outside_the_layers() -> None:
    said = "parameters.t: this gradient gives its first value, 0.2, to embedding, final norm and LM head, as in mergekit, and not the last, 0.8"
    assert warnings(read(f"{SLERP}parameters: {{t: [0.2, 0.8]}}\n")[1]) == [said]
    assert warnings(read(f"{SLERP}parameters: {{t: [{{filter: mlp, value: [0, 1]}}, {{value: 0}}]}}\n")[1]) == []


def test_a_gradient_begins_anew_in_each_slice_and_filters_see_the_layers_of_the_output() -> None:
    config, _ = read(
        "merge_method: slerp\nbase_model: b\nslices:\n"
        "- sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 2]}]\n"
        "- sources: [{model: a, layer_range: [2, 3]}, {model: b, layer_range: [2, 3]}]\n"
        "parameters: {t: [{filter: layers.2.mlp, value: 0.9}, {value: [0.2, 0.8]}]}\n"
    )
    first, second = (model["merge"]["options"]["interpolation_factor"] for model in config["models"])
    assert (config["strategy"], config["base_model"]) == ("stack", "b")
    assert first == {LAYER: [0.2, 0.8], REST: 0.2}
    assert second == {"*layers.0.mlp*": 0.9, LAYER: 0.8, REST: 0.2}  # one layer alone has the last value


def test_filters_of_an_input_see_its_own_layers() -> None:
    config, _ = read(
        "merge_method: linear\nslices:\n"
        "- sources: [{model: a, layer_range: [0, 1]}]\n"
        "- sources: [{model: a, layer_range: [10, 12]}, {model: b, layer_range: [1, 3]}]\n"
        "parameters: {weight: [{filter: layers.1, value: 5}, {value: 1}]}\n"
    )
    ours, theirs = config["models"][1]["merge"]["models"]
    assert ours["weight"] == {
        "*layers.0.*": 5.0,
        "*layers.1.*": 5.0,
        REST: 1.0,
    }  # layers.1 is in layers.10 and layers.11
    assert theirs["weight"] == {"*layers.0.*": 5.0, REST: 1.0}


def test_the_base_is_no_input_of_task_vectors_wherever_it_stands() -> None:
    listed = "merge_method: ties\nbase_model: c\nmodels: [{model: a}, {model: c, parameters: {weight: 9, density: 0.1}}]\nparameters: {weight: 1}\n"
    config, notes = read(listed)
    left_out, _ = read("merge_method: ties\nbase_model: c\nmodels: [{model: a}]\nparameters: {weight: 1}\n")
    assert config == left_out
    assert config["models"] == [{"path": "a", "weight": 1.0, "density": 1.0}]
    assert notes == [
        "note: models[1].parameters: the parameters of the base model have no effect in ties, in mergekit as here"
    ]


@pytest.mark.parametrize("method", ["linear", "karcher", "passthrough"])
def test_a_base_that_would_be_one_more_input_is_refused_with_both_readings(method: str) -> None:
    models = "[{model: a}]" if method == "passthrough" else "[{model: a}, {model: b}]"
    weight = "parameters: {weight: 1}\n" if method == "linear" else ""
    text = f"merge_method: {method}\nbase_model: c\nmodels: {models}\n{weight}"
    assert refused(text) == (
        2,
        [
            f"base_model: mergekit takes c for one more input of {method}, which has no base. List it under models with its "
            "parameters if it is to be merged too; else drop base_model, or give --read intent=true"
        ],
    )
    config, notes = read(text, intent=True)
    assert config["base_model"] == "c"
    assert notes == [
        "note: base_model: c gives config and tokenizer, and is not merged; mergekit would merge it as one more model"
    ]


def test_in_slices_a_base_is_a_source_or_gives_the_config_alone() -> None:
    sources = "slices: [{sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [1, 3]}]}]\n"
    assert refused(f"merge_method: ties\nbase_model: c\n{sources}parameters: {{weight: 1}}\n")[1] == [
        "slices[0].sources: the base model c is not among the sources, and ties needs it there. Add it"
    ]
    config, notes = read(f"merge_method: linear\nbase_model: c\n{sources}parameters: {{weight: 1}}\n")
    assert config["base_model"] == {"merge": {"strategy": "passthrough", "models": [{"path": "c", "layers": [0, 2]}]}}
    assert warnings(notes) == ["slices[0]: merges layer 0 of a with layer 1 of b, as mergekit does"]
    config, _ = read(f"merge_method: ties\nbase_model: b\n{sources}parameters: {{weight: 1}}\n")
    assert config["base_model"] == {"merge": {"strategy": "passthrough", "models": [{"path": "b", "layers": [1, 3]}]}}


UNREAD = [
    ("merge_method: sce\nbase_model: c\nselect_topk: 0.3\nmodels: [{model: a}]\n",
     "select_topk: 'select_topk' here is not read; mergekit used 1.0. It belongs under 'parameters'", ("options", "density"), 1.0, 0.3),
    ("merge_method: sce\nbase_model: c\nmodels: [{model: a, parameters: {select_topk: 0.3}}]\n",
     "models[0].parameters.select_topk: 'select_topk' here is not read; mergekit used 1.0. It belongs under 'parameters' at the top", ("options", "density"), 1.0, 0.3),
    (f"merge_method: ties\n{BASED}normalize: false\n",
     "normalize: 'normalize' here is not read; mergekit used true. It belongs under 'parameters'", ("options", "normalize_weights"), True, False),
    (f"merge_method: ties\n{BASED}parameters: {{lamda: 0.85}}\n",
     "parameters.lamda: 'lamda' here is not read; mergekit used 1.0. Did you mean 'lambda'?", ("options", "scaling_factor"), 1.0, 0.85),
    ("merge_method: ties\nbase_model: c\nmodels: [{model: a, parameters: {weight: 1, densty: 0.4}}]\n",
     "models[0].parameters.densty: 'densty' here is not read; mergekit used 1.0. Did you mean 'density'?", ("models", 0, "density"), 1.0, 0.4),
    ("merge_method: ties\nbase_model: c\nmodels: [{model: a, density: 0.4, parameters: {weight: 1}}]\n",
     "models[0].density: 'density' here is not read; mergekit used 1.0. It belongs under 'models[0].parameters'", ("models", 0, "density"), 1.0, 0.4),
    ("merge_method: passthrough\nmodels: [{model: org/a, revision: v2}]\n",
     "models[0].revision: 'revision' here is not read; mergekit used main. Write model: org/a@v2", ("models", 0, "path"), "org/a", "org/a@v2"),
    (f"merge_method: linear\n{TWO}dtpye: float16\n",
     "dtpye: 'dtpye' here is not read; mergekit ignored it. Did you mean 'dtype'?", ("options", "torch_dtype"), None, "float16"),
    (f"merge_method: linear\n{TWO}parameters: {{dtype: float16}}\n",
     "parameters.dtype: 'dtype' here is not read; mergekit ignored it. It belongs at the top of the recipe", ("options", "torch_dtype"), None, "float16"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said", "key", "mergekit", "meant"), UNREAD)
def test_what_is_not_read_is_named_and_done_on_request(
    text: str, said: str, key: Any, mergekit: Any, meant: Any
) -> None:
    def at(config: Any) -> Any:
        for part in key[:-1]:
            config = config[part]
        return config.get(key[-1])

    config, notes = read(text)
    assert (warnings(notes), at(config)) == ([said], mergekit)
    config, notes = read(text, intent=True)
    assert (warnings(notes), at(config)) == ([], meant)
    assert "is taken for what was meant" in "".join(notes)


def test_what_stands_in_the_wrong_place_is_named_where_it_is_missed() -> None:
    assert refused("merge_method: slerp\nbase_model: b\nmodels: [{model: a, parameters: {t: 0.3}}]\n")[1] == [
        "parameters: 't' is missing, and slerp needs it. Give it under parameters",
        "models[0].parameters.t: 't' here is not read; mergekit found none. It belongs under 'parameters' at the top",
    ]


@pytest.mark.parametrize("method", ["model_stock", "sce", "karcher", "arcee_fusion"])
def test_weights_of_a_method_without_weights_have_no_effect(method: str) -> None:
    models = "[{model: a, parameters: {weight: 2}}" + ("]" if method == "arcee_fusion" else ", {model: b}]")
    base = "" if method == "karcher" else "base_model: c\n"
    config, notes = read(f"merge_method: {method}\n{base}models: {models}\n")
    assert config["models"][0] == {"path": "a"}
    assert warnings(notes) == [
        f"models[0].parameters.weight: has no effect: {method} does not read 'weight', in mergekit as here. Leave it out"
    ]


def test_what_changes_no_result_is_noted() -> None:
    config, notes = read(f"merge_method: ties\n{BASED}name: x\nparameters: {{int8_mask: true}}\n")
    plain, _ = read(f"merge_method: ties\n{BASED}")
    assert (config, warnings(notes)) == (plain, [])
    assert [note.split(":")[1] for note in notes] == [" name", " parameters.int8_mask"]


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: -1}}]\n", 5,
         "models: the weights [1.0, -1.0] of a, b add up to 0, by which nothing can be divided. Change one"),
        ("merge_method: linear\nmodels: [{model: a, parameters: {weight: .inf}}]\n", 5, "models[0].parameters.weight: must be finite, got inf"),
        ("merge_method: multislerp\nbase_model: c\nmodels: [{model: a, parameters: {weight: 0}}, {model: b, parameters: {weight: 0}}]\n", 5,
         "models: the weights [0.0, 0.0] of a, b add up to 0, by which nothing can be divided. Change one"),
        ("merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [3, 1]}]}, {sources: [{model: a, layer_range: [0, 2]}]}]\n", 2,
         "slices[0].sources[0].layer_range: [3, 1] is no range of layers: mergekit would write a model with layers missing, "
         "without a word. Give the first layer and the one behind the last"),
        ("merge_method: ties\nbase_model: c\nmodels: [{model: a, parameters: {weight: 1, density: 5}}]\n", 2,
         "models[0].parameters.density: density must be from 0 to 1, got 5. A share of 0 keeps nothing: give the model weight 0; "
         "more than 1 means nothing"),
        (f"merge_method: linear\n{TWO}dtype: bf16\n", 2, "dtype: 'bf16' is no dtype that models are merged in. Write bfloat16"),
        (f"merge_method: linear\n{TWO}dtype: q4_k_m\n", 2,
         "dtype: 'q4_k_m' is no dtype that models are merged in. Write one of float16, bfloat16, float32, float64"),
        (f"merge_method: Linear\n{TWO}", 2, "merge_method: mergekit has no method 'Linear'. Did you mean 'linear'?"),
        (f"merge_method: dare-ties\n{BASED}", 2, "merge_method: mergekit has no method 'dare-ties'. Did you mean 'dare_ties'?"),
        ("merge_method: linear\nmodels: [{model: a}, {model: a}]\nparameters: {weight: 1}\n", 2,
         "models: a is given twice, which mergekit refuses. Give it once, with both weights"),
        ("merge_method: linear\nmodels: [{model: ./a}, {model: a}]\nparameters: {weight: 1}\n", 2,
         "models: './a' and 'a' are one model, spelt in two ways. Give it once"),
        ("merge_method: ties\nbase_model: ./c\nmodels: [{model: a}, {model: c}]\nparameters: {weight: 1}\n", 2,
         "models: 'c' is the base model, which base_model spells './c'. Spell both alike"),
        ("merge_method: linear\nmodels: [{model: a+b+c}]\nparameters: {weight: 1}\n", 2,
         "models[0].model: 'a+b+c' chains two adapters. Merge the adapters into one first (strategy weighted, merge_adapters: true)"),
        ("merge_method: linear\nmodels: [{model: ./a + ./l}]\nparameters: {weight: 1}\n", 2,
         "models[0].model: './a + ./l' has a blank or nothing beside its +. Write MODEL+ADAPTER"),
        ("merge_method: linear\nmodels: [{model: a}]\nparameters: {weight: [1, {value: 2}]}\n", 2,
         "parameters.weight: mixes values with mappings. Write each value as {value: …}, with a filter or without"),
        ("merge_method: linear\nmodels: [{model: a}]\nparameters: {weight: null}\n", 2,
         "parameters.weight: is empty. Give a number, a list of numbers, or leave it out"),
        (f"{SLERP}parameters: {{t: half}}\n", 2, "parameters.t: must be a number, got 'half'"),
        (f"merge_method: ties\n{BASED}parameters: {{normalize: 2}}\n", 2, "parameters.normalize: must be true or false, got 2"),
        (f"merge_method: ties\n{BASED}parameters: {{rescale: true}}\n", 2,
         "parameters.rescale: rescale: true is not available here. Leave it out, for false"),
        ("merge_method: slerp\nmodels: [{model: a}, {model: b}]\nparameters: {t: 1}\n", 2, "base_model: slerp needs a base_model. Give one at the top"),
        (f"merge_method: slerp\n{BASED}parameters: {{t: 1}}\n", 2, "models: slerp takes exactly 1 model beside the base, 2 given"),
        (f"merge_method: linear\n{TWO}slices: []\n", 2, "has models and slices. Give one of models, slices and modules"),
        ("merge_method: linear\nmodules: {text_decoder: {models: [{model: a}]}}\n", 2,
         "modules: names parts of a model (towers, encoder, decoder) other than 'default', which cannot be given recipes of their own "
         "here. Give weights by patterns on tensor names, in a config of ours"),
        (f"merge_method: linear\n{TWO}chat_template: nope\n", 2,
         "chat_template: must be one of auto, alpaca, chatml, exaone, llama3, mistral, or a template in Jinja, got 'nope'"),
        (f"merge_method: linear\n{TWO}tokenizer: {{tokens: {{x: {{force: true}}}}}}\n", 2, "tokenizer.tokens.x: must have a source: a model, or a mapping of kind zero or model_token"),
        (f"merge_method: linear\n{TWO}tokenizer: {{tokens: {{x: {{source: c}}}}}}\n", 2, "tokenizer.tokens.x: 'c' is none of the models that are merged. Name one of the models that are merged"),
        (f"merge_method: linear\n{TWO}tokenizer: union\n", 2, "tokenizer: must be a mapping, got 'union'. Write {source: …}"),
        (f"merge_method: linear\n{TWO}tokenizer_source: Union\n", 2, "tokenizer_source: 'Union' is none of the models that are merged. Write union"),
        (f"merge_method: linear\n{TWO}tokenizer_source: a\ntokenizer: {{}}\n", 2, "has tokenizer_source and tokenizer. Give one of them"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_a_sentence(text: str, status: int, said: str) -> None:
    assert refused(text) == (status, [said])


def test_all_that_is_wrong_is_said_at_once() -> None:
    status, lines = refused(
        "merge_method: DARE-ties\nbase_model: ./c\ndtype: fp16\nmodels: [{model: c}, {model: a, parameters: {weight: x}}]\n"
    )
    assert status == 2
    assert [line.split(":")[0] for line in lines] == [
        "merge_method",
        "models",
        "models[0]",
        "models[1].parameters.weight",
        "dtype",
    ]


@pytest.mark.parametrize("method", ["ties", "della"])
def test_a_negative_weight_never_adds_what_it_shall_take_away(method: str) -> None:
    text = f"merge_method: {method}\nbase_model: c\nmodels: [{{model: a, parameters: {{weight: -1}}}}, {{model: b, parameters: {{weight: 1}}}}]\n"
    assert refused(text)[1] == [
        "models: has a negative weight, and normalize: mergekit divides by the sum of the weights, and so adds what a negative "
        "one shall take away; here it is taken away. Give --read intent=true for that, or normalize: false"
    ]
    config, notes = read(text, intent=True)
    assert [model["weight"] for model in config["models"]] == [-1.0, 1.0]
    assert "taken away" in warnings(notes)[0]
    assert read(f"{text}parameters: {{normalize: false}}\n")[0]["options"]["normalize_weights"] is False


@pytest.mark.parametrize(
    ("method", "given", "rescale", "said"),
    [
        ("dare_linear", "density: 0.5", "l1", "the paper divides by density"),
        ("dare_ties", "density: 0.5, rescale: false", False, "follows from options.seed"),
        ("dare_ties", "", "l1", "this is no DARE"),
        ("della", "density: 0.5", "l1", "follows from options.seed"),
    ],
)
def test_what_is_kept_is_scaled_as_mergekit_does(method: str, given: str, rescale: object, said: str) -> None:
    config, notes = read(f"merge_method: {method}\n{BASED}parameters: {{{given}}}\n")
    assert config["options"]["rescale"] == rescale
    assert any(said in note for note in notes)
    assert warnings(notes) == []


def test_sce_says_that_energies_count_however_small() -> None:
    assert "mergekit weighs them equally" in read("merge_method: sce\nbase_model: c\nmodels: [{model: a}]\n")[1][0]


@pytest.mark.parametrize("tokenizer", ["tokenizer: {}", "tokenizer_source: union", "tokenizer: {source: union}"])
def test_a_union_of_vocabularies_is_one_here_too(tokenizer: str) -> None:
    config, notes = read(f"merge_method: linear\n{TWO}{tokenizer}\n")
    assert config["options"]["tokenizer_source"] == "union"
    assert len(notes) == 1
    assert "joins vocabularies that differ script by script" in notes[0]


@pytest.mark.parametrize(
    ("entry", "due"),
    [
        ("{source: ./x/b}", {"model": "b"}),
        ("{source: ./x/b, force: true}", {"model": "b", "force": True}),
        ("{source: {kind: zero}}", {"zero": True}),
        ("{source: {kind: model_token, model: a, token: <s>}}", {"model": "a", "token": "<s>"}),
        (
            "{source: {kind: model_token, model: a, token_id: 7}, force: true}",
            {"model": "a", "token": 7, "force": True},
        ),
    ],
)
def test_rows_of_single_tokens_come_from_where_the_recipe_says(entry: str, due: dict[str, Any]) -> None:
    models = "models: [{model: a, parameters: {weight: 1}}, {model: ./x/b, parameters: {weight: 1}}]\n"
    text = f"merge_method: linear\n{models}tokenizer: {{source: base, tokens: {{<x>: {entry}}}}}\n"
    assert read(text)[0]["options"]["token_sources"] == {"<x>": due}


def test_rows_are_padded_as_the_recipe_says() -> None:
    config, notes = read(f"merge_method: linear\n{TWO}tokenizer: {{source: base, pad_to_multiple_of: 8}}\n")
    assert config["options"]["pad_to_multiple_of"] == 8
    assert warnings(notes) == []


def test_rows_that_a_model_lacks_are_the_bases_as_in_mergekit() -> None:
    three = "models: [{model: c, parameters: {weight: 1}}, {model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]\n"
    config, _ = read(f"merge_method: linear\nbase_model: c\n{three}tokenizer: {{source: base}}\n")
    assert config["options"]["missing_tokens"] == "base"
    assert config["base_model"] == "c"
    config, _ = read(f"merge_method: linear\nbase_model: c\n{three}")
    assert "missing_tokens" not in config["options"]


@pytest.mark.parametrize(
    ("tokenizer", "source"),
    [
        ("tokenizer:", None),
        ("tokenizer_source: base", "base"),
        ("tokenizer: {source: ./x/b}", "b"),
        ("tokenizer_source: a", "base"),
    ],
)
def test_the_tokenizer_of_a_model(tokenizer: str, source: str | None) -> None:
    models = "models: [{model: a, parameters: {weight: 1}}, {model: ./x/b, parameters: {weight: 1}}]\n"
    assert read(f"merge_method: linear\n{models}{tokenizer}\n")[0]["options"].get("tokenizer_source") == source


@pytest.mark.parametrize("wanted", ["alpaca", "chatml", "exaone", "llama3", "mistral"])
def test_a_named_chat_template_renders(wanted: str) -> None:
    from jinja2 import Environment

    text = read(f"merge_method: linear\n{TWO}chat_template: {wanted}\n")[0]["options"]["chat_template"]
    told = [{"role": "user", "content": "HOW"}, {"role": "assistant", "content": "SO"}]
    rendered = (
        Environment(autoescape=False)
        .from_string(text)
        .render(messages=told, bos_token="<s>", eos_token="</s>", add_generation_prompt=True)
    )
    assert rendered.index("HOW") < rendered.index("SO")


@pytest.mark.parametrize(("t", "due"), [("2", 2.0), ("-0.5", -0.5), ("[0, 1.5]", None)])
def test_slerp_beyond_the_models_is_a_warning(t: str, due: float | None) -> None:
    config, notes = read(f"{SLERP}parameters: {{t: {t}}}\n")
    assert "interpolation_factor" not in config["options"]
    assert due is None or config["options"]["extrapolation_factor"] == due
    assert any("t is usually from 0 to 1" in line for line in warnings(notes))


def test_the_commonest_chat_template_is_taken_by_name() -> None:
    config, _ = read(f"merge_method: linear\n{TWO}chat_template: auto\n")
    assert config["options"]["chat_template_from"] == "commonest"


def test_dtypes_and_who_gives_the_config() -> None:
    config, notes = read(f"merge_method: linear\n{TWO}dtype: torch.bfloat16\n")
    assert config["options"]["torch_dtype"] == "bfloat16"
    assert notes == ["note: dtype: is read as bfloat16, so that config.json says that too"]
    assert (
        read(f"merge_method: linear\n{TWO}dtype: float32\nout_dtype: float16\n")[0]["options"]["torch_dtype"]
        == "float16"
    )
    assert "base_model" not in config  # the first model, as listed, is the donor
    assert read(f"merge_method: linear\nbase_model: b\n{TWO}")[0]["base_model"] == "b"


def test_a_gradient_that_looks_as_if_it_were_for_the_models_is_a_warning() -> None:
    _, notes = read("merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: [0.3, 0.7]}\n")
    assert warnings(notes) == [
        "parameters.weight: has one value for each of 2 models, but is a gradient over the layers, as in mergekit. "
        "Give each model its own under its parameters, if that is meant"
    ]


def test_layers_that_are_left_out_are_noted() -> None:
    _, notes = read(
        "merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [0, 2]}]\n"
        "- sources: [{model: b, layer_range: [2, 4]}]\n- sources: [{model: a, layer_range: [3, 4]}]\n"
    )
    assert notes == ["note: slices: layer 2 of a is in no slice", "note: slices: layers 0, 1 of b are in no slice"]


def test_a_key_that_is_given_twice_is_a_warning_and_the_last_counts() -> None:
    config, notes = read(f"merge_method: linear\nmerge_method: ties\n{BASED}")
    assert config["strategy"] == "ties"
    assert warnings(notes) == ["line 2: merge_method: is given twice, and the last one counts, as in mergekit"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base_model: x\nexperts: [{source_model: a}]\n", "is a recipe of mergekit-moe"),
        ("genome: {models: [a], merge_method: ties}\ntasks: []\n", "is a config of mergekit-evolve"),
        ("base_model: x\ngate_mode: hidden\nexpert: [{source_model: a}]\n", "is a recipe of mergekit-moe"),
        ("experts_per_token: 2\nshared_experts: []\n", "is a recipe of mergekit-moe"),
        ("model: a\nbase_model: b\nmax_rank: 32\n", "has settings of mergekit-extract-lora"),
        ("model: a\nbase-model: b\nmax-rank: 32\n", "has settings of mergekit-extract-lora"),
        ("finetuned_model: a\nbase_model: b\n", "has settings of mergekit-extract-lora"),
        ("layer_slices: [{model: a, start: 0, end: 4}]\n", "is a config of bakllama"),
    ],
)
def test_files_for_other_programs_are_recognised(text: str, said: str) -> None:
    status, (line,) = refused(text)
    assert (status, line.startswith(said)) == (2, True)
    assert len(line) < 290


def test_aliases_stand_for_copies() -> None:
    text = "merge_method: ties\nbase_model: c\nmodels:\n- {model: a, parameters: &p {weight: 1, int8_mask: true}}\n- {model: b, parameters: *p}\n"
    config, notes = read(text)
    assert [model["weight"] for model in config["models"]] == [1.0, 1.0]
    assert len(notes) == 2


def test_a_bomb_of_aliases_is_refused() -> None:
    levels = "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 12))
    assert "Shorten it" in refused(f"merge_method: ties\nx0: &x0 [1]\n{levels}")[1][0]
