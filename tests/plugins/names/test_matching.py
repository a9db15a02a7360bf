"""Names told by structure: which name stands for which, for whole models and for parts of them."""

import random

import pytest
from modelmerger_plugins.names import file_names
from modelmerger_plugins.names.matching import match

Shapes = dict[str, tuple[int, ...]]


def text(prefix: str, layers: int = 2, rows: int = 11) -> Shapes:
    made: Shapes = {f"{prefix}embed_tokens.weight": (rows, 4), f"{prefix}norm.weight": (4,)}
    for i in range(layers):
        made |= {f"{prefix}layers.{i}.self_attn.{which}_proj.weight": (4, 4) for which in "qkv"}
        made |= {f"{prefix}layers.{i}.mlp.up_proj.weight": (6, 4), f"{prefix}layers.{i}.mlp.down_proj.weight": (4, 6)}
    return made


def eye(prefix: str, layers: int = 2) -> Shapes:
    made: Shapes = {f"{prefix}embeddings.class_embedding": (4,), f"{prefix}post_layernorm.weight": (4,)}
    for i in range(layers):
        made |= {f"{prefix}encoder.layers.{i}.self_attn.{which}_proj.weight": (4, 4) for which in "qkv"}
        made |= {f"{prefix}encoder.layers.{i}.mlp.fc1.weight": (8, 4)}
    return made


HEAD: Shapes = {"lm_head.weight": (11, 4)}
ON_DISK = text("language_model.model.") | {"language_model.lm_head.weight": (11, 4)} | eye("vision_tower.vision_model.")
IN_MEMORY = text("model.language_model.") | HEAD | eye("model.vision_tower.")
ALIKE = {
    "a prefix too many": (text("transformer."), text("")),
    "a prefix too few": (text(""), text("bert.")),
    "a prefix, and heads of each": (
        text("bert.") | {"classifier.weight": (2, 4)},
        text("") | {"pooler.dense.weight": (4, 4)},
    ),
    "of a vision-language model": (IN_MEMORY, ON_DISK),
    "of one whose file has no tower": (
        text("model.language_model.") | eye("model.visual.") | HEAD,
        text("model.") | eye("visual.") | HEAD,
    ),
    "the tower alone": (text("language_model."), text("model.") | eye("visual.") | HEAD),
    "another word": (text("backbone."), text("model.") | HEAD),
}
ENDS = ("model.language_model.", "language_model.model.", "model.vision_tower.vision_model.", "model.vision_tower.",
        "vision_tower.vision_model.", "language_model.", "model.visual.", "visual.", "transformer.", "bert.", "backbone.", "model.")  # fmt: skip


def core(name: str) -> str:
    """The name without whatever is in front of a tower, by hand."""
    for start in ENDS:
        name = name.removeprefix(start)
    return ("eye." if "encoder" in name or "class_emb" in name or "post_lay" in name else "") + name


@pytest.mark.parametrize("back", [False, True], ids=["", "back"])
@pytest.mark.parametrize("kind", ALIKE)
def test_whole_models_of_other_names(kind: str, back: bool) -> None:
    ours, theirs = ALIKE[kind][::-1] if back else ALIKE[kind]
    by_core = {core(name): name for name in theirs}
    expected = {name: by_core[core(name)] for name in ours if core(name) in by_core}
    assert match(ours, theirs, whole=True).names == expected
    wrapped = {f"module.{name.replace('layers.0.', 'layers.0._orig_mod.')}": shape for name, shape in ours.items()}
    assert set(match(wrapped, theirs, whole=True).names.values()) == set(expected.values())


@pytest.mark.parametrize("shapes", [False, True])
def test_a_part_of_a_model_goes_by_the_words_that_stay(shapes: bool) -> None:
    """Nothing but the front tells the two towers apart."""
    for part in ("language_model", "vision_tower"):
        names = [name for name in IN_MEMORY if part in name and name.endswith(("q_proj.weight", "v_proj.weight"))]
        by_core = {core(name): name for name in ON_DISK}
        for stored in (ON_DISK, dict(reversed(ON_DISK.items()))):
            found = file_names({name: IN_MEMORY[name] for name in names} if shapes else names, stored)
            assert found == {name: by_core[core(name)] for name in names}
            assert len(found) == 4


def test_nothing_is_renamed_where_two_ways_are_equally_good() -> None:
    two = text("query.") | text("answer.")
    found = match(text(""), two, whole=True)
    assert found.names == {}
    assert {str(rule) for rule in found.doubts[0]} == {"with 'query.' in front", "with 'answer.' in front"}
    assert file_names(list(text("")), two) == {}
    assert match(two, text(""), whole=True).names == {}
    assert file_names(list(text("")), text("model.") | text("model.draft.")) == {}
    assert len(file_names(list(text("a.b.")), text("c.a.b.") | text("b.a."))) == len(
        text("")
    )  # the latter has all words


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"score.weight": (2, 4)}, {"lm_head.weight": (2, 4)}),
        ({"layers.0.attn.k.weight": (4, 4)}, {"layers.0.attn.q.weight": (4, 4)}),
        ({"layers.0.weight": (4, 4)}, {"layers.1.weight": (4, 4)}),
        ({"encoder.embed.weight": (4, 4)}, {"decoder.embed.weight": (4, 4)}),
        ({"layers.0.attn.norm.weight": (4,)}, {"layers.0.norm.weight": (4,)}),
        (text("bert.", rows=11), {name: (*shape, 1) for name, shape in text("").items()}),
    ],
)
def test_what_only_looks_alike_is_not_renamed(ours: Shapes, theirs: Shapes) -> None:
    rest = text("model.")
    assert match(rest | ours, rest | theirs, whole=True).names == {name: name for name in rest}
    assert file_names(list(ours), rest | theirs) == {} if len(ours) == 1 else True


def test_an_adapter_of_another_kind_of_model_or_of_more_layers_fits_nowhere() -> None:
    stored = text("roberta.encoder.") | eye("tower.", layers=9)
    assert file_names(list(text("bert.encoder.")), stored) == {}
    more = [f"model.layers.{i}.self_attn.q_proj.weight" for i in range(4)]
    found = file_names(more, text("model.") | text("model.visual.", layers=9))
    assert found == {name: name for name in more[:2]}


def test_layers_that_the_other_model_lacks_and_another_vocabulary_keep_to_the_rule() -> None:
    found = match(text("transformer.", layers=3, rows=12), text(""), whole=True)
    assert found.names["transformer.embed_tokens.weight"] == "embed_tokens.weight"
    assert set(found.others.values()) == text("", layers=3).keys() - text("").keys()


@pytest.mark.parametrize(
    ("old", "today"),
    [
        ("bert.embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.weight"),
        ("bert.encoder.layer.0.output.LayerNorm.beta", "bert.encoder.layer.0.output.LayerNorm.bias"),
        ("vit.encoder.layer.0.attention.attention.query.weight", "vit.layers.0.attention.q_proj.weight"),
        ("vit.encoder.layer.0.attention.output.dense.bias", "vit.layers.0.attention.o_proj.bias"),
        ("vit.encoder.layer.0.intermediate.dense.bias", "vit.layers.0.mlp.fc1.bias"),
        ("vit.encoder.layer.0.output.dense.bias", "vit.layers.0.mlp.fc2.bias"),
        ("model.layers.0.block_sparse_moe.gate.weight", "model.layers.0.mlp.gate.weight"),
        ("conv.parametrizations.weight.original1", "conv.weight_v"),
    ],
)
def test_spellings_that_transformers_has_changed(old: str, today: str) -> None:
    assert file_names([today], {old: (4,), "other.weight": (4,)}) == {today: old}
    assert file_names([old], {today: (4,), "other.weight": (4,)}) == {old: today}
    assert file_names([f"module.{today.split('.', 1)[1]}"], {old: (4,)}) == {f"module.{today.split('.', 1)[1]}": old}


def test_names_of_hostile_files_are_given_up() -> None:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=5)) for _ in range(40)]
    many = {f"{'.'.join(draw.choices(words, k=3))}.{i % 7}.w.weight": (2,) for i in range(4000)}
    other = {f"{'.'.join(draw.choices(words, k=3))}.{i % 7}.w.weight": (2,) for i in range(4000)}
    long = {".".join(["a"] * 50_000) + str(i): (1,) for i in range(3)}
    moved = {f"b.{name}": shape for name, shape in long.items()}
    found = match(many | long, other | moved, whole=True)  # within a second; without limits, not within an hour
    assert not any(name.startswith("a.a.") for name in found.names)
