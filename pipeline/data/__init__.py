"""Data sets: where problems come from, and the worked solutions SFT trains on."""

from pipeline.data.sources import check_data, load_problems, worked_solution

__all__ = ["check_data", "load_problems", "worked_solution"]
