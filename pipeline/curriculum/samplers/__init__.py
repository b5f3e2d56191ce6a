"""Samplers: which of a stage's problems a GRPO step asks, from the seed and from what was measured so far."""
