"""The arithmetic of task vectors that several strategies share: thresholds, dropping, signs, scales."""
