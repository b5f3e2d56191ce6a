"""The topic of a problem, from its source or else from the words of its statement."""

import re

TOPICS = ("algebra", "geometry", "number theory", "combinatorics", "precalculus", "calculus", "statistics", "other")
_SUBJECTS = [  # (part of a subject's name, topic); the first match counts
    (r"number theory|prime numbers|divisib|modular", "number theory"),
    (r"combinat|counting|probability|discrete|graph theory", "combinatorics"),
    (r"precalculus|trigonometr|pre-calculus", "precalculus"),
    (r"calculus|derivative|integral\b|analysis|differential eq", "calculus"),
    (r"geometr|triangle|circle", "geometry"),
    (r"statistic", "statistics"),
    (r"algebra|equation|polynomial|inequalit|function|arithmetic|sequence|matri|word problem", "algebra"),
]
_WORDS = [
    (r"\b(?:triangle|circle|square|rectangle|polygon|quadrilateral|hexagon|pentagon|trapezoid|parallelogram|sphere"
     r"|cube|cone|cylinder|pyramid|tetrahedron|angle|perimeter|area|radius|diameter|chord|tangent|perpendicular"
     r"|parallel|circumcircle|incircle|midpoint|vertex|vertices|altitude|bisector)s?\b|\\triangle|\\angle", "geometry"),
    (r"\b(?:prime|divisors?|divisible|divides|multiples?|remainder|modulo|gcd|lcm|coprime|relatively prime|digits?"
     r"|perfect square|base|integers?|congruent|factorial)\b|\\pmod|\\bmod|\\gcd", "number theory"),
    (r"\b(?:how many (?:ways|different|distinct|sets|subsets|sequences|permutations|arrangements|functions|paths)"
     r"|probability|expected|permutations?|combinations?|arrangements?|randomly|random|coins?|dice|die|subsets?"
     r"|tournament|committee|cards|colou?red|colou?rings?)\b|\\binom", "combinatorics"),
    (r"\b(?:sine|cosine|vectors?|matrix|matrices|determinant|polar|spherical coordinates)\b"
     r"|\\(?:sin|cos|tan|cot|sec|csc)\b|\\begin\{pmatrix\}", "precalculus"),
    (r"\b(?:derivative|differentiable|continuous|integral|integrate|convergent?)\b|\\int(?![a-z])|\\lim\b", "calculus"),
    (r"\b(?:median|variance|standard deviation|mean of|average of)\b", "statistics"),
    (r"\b(?:equations?|polynomial|roots?|solve|solutions?|function|quadratic|inequality|sequence|expression|simplify"
     r"|evaluate|real numbers?|complex|logarithm|coefficients?|factor|percent|per hour|cost|sum of)\b"
     r"|[a-z]\s*=|f\(x\)|\^2|\\log", "algebra"),
]  # fmt: skip
_SUBJECT_RULES = [(re.compile(pattern), topic) for pattern, topic in _SUBJECTS]
_WORD_RULES = [(re.compile(pattern), topic) for pattern, topic in _WORDS]


def topic_of(subject: str, statement: str) -> str:
    """One of ``TOPICS``.

    Args:
        subject: as the source states it, or empty. In ``Mathematics -> Applied Mathematics -> Statistics ->
            Probability`` the most specific known part counts.
    """
    for part in reversed(subject.casefold().split("->")):
        for rule, topic in _SUBJECT_RULES:
            if rule.search(part):
                return topic
    return _topic_by_words(statement.casefold())


def _topic_by_words(statement: str) -> str:
    """The topic with the most keywords in the text; on a tie, the first in the table."""
    counts = [(len(rule.findall(statement)), topic) for rule, topic in _WORD_RULES]
    most, topic = max(counts, key=lambda pair: pair[0])
    return topic if most else "other"
