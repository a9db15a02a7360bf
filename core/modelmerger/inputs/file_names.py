"""How the files of a model directory are called that several plugins know: to fetch them, to copy them, to refuse them."""

TOKENIZER = (
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
TEMPLATES = "additional_chat_templates"
"""The folder of further chat templates."""
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""How pickled weights end."""
