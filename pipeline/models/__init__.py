"""Models: finding their files, loading them, LoRA."""
