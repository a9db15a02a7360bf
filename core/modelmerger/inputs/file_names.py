"""How the files of a model directory are called that several plugins know: to fetch them, to copy them, to refuse them."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "tekken.json",
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
