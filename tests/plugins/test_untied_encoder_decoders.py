"""`untie` on encoder-decoders and masked models: transformers loads each matrix of its own, and the rest as it was."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from modelmerger import MergeConfig, merge
from modelmerger.planning.ties import tied_configs, tied_embeddings
from safetensors.torch import load_file, save_file

HALF = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "vocab_size": 24}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "d_model": 8, "pad_token_id": 0}
BART = HALF | HEADS | {"max_position_embeddings": 16, "decoder_start_token_id": 0}
T5 = {"vocab_size": 24, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
BERT = {"vocab_size": 24, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
GEMMA: dict[str, Any] = {
    "vocab_size": 24,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
GEMMA |= {"num_key_value_heads": 1, "head_dim": 4, "layer_types": ["full_attention"], "max_position_embeddings": 16}
SIGLIP: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
SIGLIP |= {"image_size": 16, "patch_size": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "T5ForConditionalGeneration": T5,
    "MT5ForConditionalGeneration": T5,
    "SwitchTransformersForConditionalGeneration": T5 | {"num_experts": 2},
    "BartForConditionalGeneration": BART,
    "M2M100ForConditionalGeneration": BART,
    "MarianMTModel": BART,
    "WhisperForConditionalGeneration": BART
    | {"num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 16},
    "ProphetNetForConditionalGeneration": {"vocab_size": 24, "hidden_size": 8, "num_encoder_layers": 1}
    | {"num_decoder_layers": 1, "num_encoder_attention_heads": 2, "num_decoder_attention_heads": 2}
    | {"encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "max_position_embeddings": 16},
    "T5GemmaForConditionalGeneration": {"encoder": GEMMA, "decoder": GEMMA | {"cross_attention_hidden_size": 8}}
    | {"vocab_size": 24},
    "T5Gemma2ForConditionalGeneration": {
        "encoder": {"text_config": GEMMA, "vision_config": SIGLIP, "mm_tokens_per_image": 4}
        | {"eoi_token_index": 22, "image_token_index": 23},
        "decoder": GEMMA,
        "image_token_index": 23,
        "eoi_token_index": 22,
    },
    "BertForMaskedLM": BERT | {"tie_word_embeddings": True},
    "RobertaForMaskedLM": BERT | {"tie_word_embeddings": True},
}
SPECIAL = {"bos_token_id": 0, "eos_token_id": 1}


def made(architecture: str, path: Path, seed: int) -> Any:
    kind = getattr(transformers, architecture)
    torch.manual_seed(seed)
    model = kind(kind.config_class(**FAMILIES[architecture], **SPECIAL)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    model.save_pretrained(path)
    return model


def tied(model: Any) -> set[str]:
    """The names of the matrix that stands for tokens and is stored under one of them."""
    state = model.state_dict(keep_vars=True)
    at = model.get_output_embeddings().weight
    return {name for name, held in state.items() if held is at}


@pytest.fixture(params=FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> SimpleNamespace:
    a, b = (made(request.param, tmp_path / name, seed) for seed, name in enumerate("ab"))
    return SimpleNamespace(a=a, b=b, kind=type(a), folder=tmp_path, head=f"{head_of(a)}.weight")


def head_of(model: Any) -> str:
    return next(name for name, module in model.named_modules() if module is model.get_output_embeddings())


def drift(pair: SimpleNamespace, *names: str) -> dict[str, torch.Tensor]:
    """Gives 'b' matrices of its own under these names; they are what it returns."""
    file = pair.folder / "b/model.safetensors"
    stored = load_file(file)
    at = pair.b.get_output_embeddings().weight.detach()
    own = {name: at + torch.randn(at.shape, generator=torch.Generator().manual_seed(i)) for i, name in enumerate(names)}
    save_file(stored | own, file, metadata={"format": "pt"})
    return own


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_each_matrix_is_loaded_as_it_was_merged(pair: SimpleNamespace, order: str) -> None:
    own = drift(pair, pair.head)
    output = pair.folder / "out"
    models = [{"path": str(pair.folder / name)} for name in order]

    merge(MergeConfig("weighted", models, output_path=str(output), options={"untie": True}))

    loaded, said = pair.kind.from_pretrained(output, output_loading_info=True)
    assert {key: list(value) for key, value in said.items() if value} == {}
    first, second = (model.state_dict() for model in (pair.a, pair.b))
    stored = {*load_file(pair.folder / "a/model.safetensors"), *tied(pair.a)}
    for name, found in loaded.state_dict().items():
        if name in stored:
            torch.testing.assert_close(found, (first[name] + own.get(name, second[name])) / 2, rtol=1e-6, atol=1e-6)
    for flag in ("scale_decoder_outputs", "scale_embedding"):
        assert getattr(loaded.config, flag, None) == getattr(pair.a.config, flag, None)


def test_embeddings_of_the_halves_that_drifted_are_kept_apart(pair: SimpleNamespace) -> None:
    """Those that have any; of others, the head alone."""
    halves = sorted(name for name in tied(pair.a) if re.search(r"coder\.(embed_tokens|word_embeddings)", name))
    own = drift(pair, *halves, pair.head)
    output = pair.folder / "out"
    models = [{"path": str(pair.folder / name)} for name in "ab"]

    merge(MergeConfig("weighted", models, output_path=str(output), options={"untie": True}))

    loaded = pair.kind.from_pretrained(output).state_dict()
    at = pair.a.get_output_embeddings().weight.detach()
    for name, matrix in own.items():
        torch.testing.assert_close(loaded[name], (at + matrix) / 2, rtol=1e-6, atol=1e-6)


def test_the_types_whose_config_cannot_say_it_are_those_of_transformers() -> None:
    """Encoder-decoders that force the key, or scale what comes of the decoder by it."""
    folder = Path(transformers.__file__).parent / "models"
    forces = re.compile(r"self\.tie_word_embeddings = True")
    scales = re.compile(r"if self\.config\.tie_word_embeddings:\s+(#.*\s+)*sequence_output =")
    found = set()
    for path in folder.glob("*/modeling_*.py"):
        text, config = path.read_text("utf-8"), path.with_name(path.name.replace("modeling", "configuration"))
        told = config.read_text("utf-8") if config.exists() else ""
        if "decoder.embed_tokens.weight" in text and (forces.search(told) or scales.search(text)):
            found.add(path.parent.name)
    assert found == tied_configs._MEANS_MORE


def test_the_types_that_are_tied_to_the_encoder_are_those_of_transformers() -> None:
    folder = Path(transformers.__file__).parent / "models"
    tied_to = re.compile(r""""lm_head[\w.]*": "model\.encoder\.[\w.]*embed_tokens""")
    found = {path.parent.name for path in folder.glob("*/modeling_*.py") if tied_to.search(path.read_text("utf-8"))}
    assert found == tied_embeddings._TIED_TO_ENCODER
