"""How files of a model directory are called that several plugins know: to fetch, to copy, or to refuse them."""

VOCABULARY_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tekken.json",
    "*vocab*.json",
    "*vocab*.txt",
    "vocab.tsv",
    "*.bpe",
    "*.codes",
    "*.model",
    "*.model.v[0-9]*",
    "*.spm",
    "*.tiktoken",
    "*.vocab",
    "dict.txt",
    "dict.*.txt",
)
"""Shell patterns of files of which a tokenizer has at least one."""
TOKENIZER_FILES = (
    *VOCABULARY_FILES,
    "chat_template.jinja",
    "chat_template.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "normalizer.json",
    "emoji.json",
)
"""Shell patterns of tokenizer and chat template files."""
PROCESSOR_FILES = ("*processor_config.json", "feature_extractor_config.json")
"""Shell patterns of the files of image, video and audio processors."""
EMBEDDER_FILES = ("modules.json", "sentence_*_config.json", "config_sentence_transformers.json")
"""Shell patterns of files that say how the outputs of a model become an embedding. Folders that `modules.json` names
belong to them."""
TEMPLATES_FOLDER = "additional_chat_templates"
"""The folder of further chat templates."""
PICKLED_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""How pickled weights end."""
