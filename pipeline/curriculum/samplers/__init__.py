"""Samplers choose the problems of a stage that a GRPO step asks, from the seed and from what was measured so far."""
