"""The union of tokenizers: the first one, with what others add for the scripts that they know better."""
