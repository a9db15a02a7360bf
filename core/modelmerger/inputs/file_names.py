"""How files of a model directory are called that several plugins know: to fetch, to copy, or to refuse them."""

VOCABULARY_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.*", "*.model", "tekken.json")
"""Shell patterns of files of which a tokenizer has at least one."""
TOKENIZER_FILES = (
    *VOCABULARY_FILES,
    "chat_template.jinja",
    "chat_template.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "image_processor_config.json",
    "video_preprocessor_config.json",
    "feature_extractor_config.json",
    "normalizer.json",
)
"""Shell patterns of tokenizer, chat template and processor files."""
TEMPLATES_FOLDER = "additional_chat_templates"
"""The folder of further chat templates."""
PICKLED_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""How pickled weights end."""
