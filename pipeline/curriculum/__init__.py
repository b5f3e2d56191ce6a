"""Training in stages of rising difficulty: stages and their keys, replay, searches, and what was forgotten."""
