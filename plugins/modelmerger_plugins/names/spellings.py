"""Parts of names that transformers has renamed: what files have, and what its modules are called today."""

import re

_SPELLINGS = (
    (r"LayerNorm\.gamma$", "LayerNorm.weight"),
    (r"LayerNorm\.beta$", "LayerNorm.bias"),
    (r"parametrizations\.weight\.original0$", "weight_g"),
    (r"parametrizations\.weight\.original1$", "weight_v"),
    (r"block_sparse_moe\.", "mlp."),
    (r"encoder\.layer\.(?=\d)", "layers."),  # ViT and its kin; all of these, also of BERT, on both sides
    (r"attention\.(attention\.|self\.)?query\.", "attention.q_proj."),
    (r"attention\.(attention\.|self\.)?key\.", "attention.k_proj."),
    (r"attention\.(attention\.|self\.)?value\.", "attention.v_proj."),
    (r"attention\.output\.dense\.", "attention.o_proj."),
    (r"out_proj\.", "o_proj."),
    (r"intermediate\.dense\.", "mlp.fc1."),
    (r"output\.dense\.", "mlp.fc2."),
)
_OLD = [(re.compile(r"(?<![^.])" + old), new) for old, new in _SPELLINGS]
"""Old spelling → today's; each only where a part of the name begins."""


def todays(name: str) -> str:
    """The name with today's spelling of its parts. Only good for comparing: both sides must be spelled by it."""
    for old, new in _OLD:
        name = old.sub(new, name)
    return name
