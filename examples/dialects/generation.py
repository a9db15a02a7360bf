"""One short sentence per model, the same for everyone who runs the demo on the same torch."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROMPT = "كيف"
SEED = 7
NEW_TOKENS = 32
LONGEST = 48


def clean(text: str) -> str:
    """Printable characters on one line: a byte-level model may sample broken or control characters."""
    words = text.replace("\ufffd", " ").split()
    return " ".join(filter(None, ("".join(ch for ch in word if ch.isprintable()) for word in words)))


def cut(text: str, complete: bool, longest: int = LONGEST) -> str:
    """At most `longest` characters of whole words; a sentence that goes on ends with an ellipsis."""
    words = text.split()
    if not complete:
        words = words[:-1]
    kept: list[str] = []
    for word in words:
        if len(" ".join([*kept, word])) > longest:
            break
        kept.append(word)
    line = " ".join(kept)
    return line if complete and len(kept) == len(words) else f"{line} …"


def generate_line(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str = PROMPT) -> str:
    """The prompt and a sampled continuation (temperature 0.6, nucleus of 0.9), cleaned and cut."""
    torch.manual_seed(SEED)
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(prompt, add_special_tokens=False)]])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        temperature=0.6,
        top_p=0.9,
        min_new_tokens=8,
        max_new_tokens=NEW_TOKENS,
    )[0]
    complete = int(output[-1]) == tokenizer.eos_token_id
    return cut(clean(tokenizer.decode(output, skip_special_tokens=True)), complete)
