"""Training in stages of rising difficulty: what the stages are, what is replayed, what was forgotten."""
