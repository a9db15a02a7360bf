"""The header of a safetensors file, read strictly: one that is accepted here, every reader understands alike."""
