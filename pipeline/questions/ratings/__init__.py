"""Ratings of problems: quality, difficulty and topic. docs/data.md#ratings.

quality.py      checks of a problem, with latex.py and steps.py
difficulty.py   one scale for all sources, with solve_rates.py
topics.py       algebra, geometry, ...
rate.py         rates whole data sets, chosen and read as settings.py says
card.py         writes the problems with a data card
"""

from pipeline.questions.ratings.card import write_ratings
from pipeline.questions.ratings.rate import Ratings, rate
from pipeline.questions.ratings.settings import RateSettings

__all__ = ["RateSettings", "Ratings", "rate", "write_ratings"]
