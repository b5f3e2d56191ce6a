"""Maths, data, models and files of Gradus. Nothing in this package imports ray or vllm."""
