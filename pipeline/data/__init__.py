"""Data sets: where problems come from, and the worked solutions SFT trains on."""

from pipeline.data.answers import worked_solution
from pipeline.data.problems import check_data, load_problems

__all__ = ["check_data", "load_problems", "worked_solution"]
