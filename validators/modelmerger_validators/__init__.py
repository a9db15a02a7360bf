"""The built-in validators, one a module, with the Arabic texts and the dialect scorer that they use by default."""
