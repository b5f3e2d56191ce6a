"""Evaluation of models on mathematics problems."""
