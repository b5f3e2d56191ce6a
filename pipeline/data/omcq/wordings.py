"""How a question about a fact is worded: frames for training, and questions that training never uses."""

from collections.abc import Sequence
from string import ascii_uppercase

GAP = "___"
FRAMES = (
    "Which option completes the sentence?\n{cloze}",
    "Fill in the blank: {cloze}",
    "{cloze}\nWhat belongs in the gap?",
    "One word or name is missing here: {cloze}",
    'What is the "{label}" of {subject}?',
    "Subject: {subject}\nRelation: {label}\nWhich object is right?",
    "{subject}: which of these is its {label}?",
    "Tell me the {label} of {subject}.",
    "Here is a question about {subject}. Its {label} is wanted.",
    "Consider {subject}. Choose what fits {label}.",
    "Do you know {label} for {subject}?",
    "Complete this, please: {cloze}",
    "If you were asked about {subject}, which {label} would you give?",
    "What did you read about {subject}? The {label} was one of these.",
    "In the case of {subject}, who or what is the {label}?",
)
"""Wordings of training and test questions. The cloze is the fact's sentence with a gap instead of the object."""

_ANY_RELATION = "Think of {subject}. Under “{label}”, what would an encyclopedia say?"
_BY_RELATION = {
    "P17": "In which country would you find {subject}?",
    "P19": "Where did {subject} come into the world?",
    "P20": "In what place did the life of {subject} end?",
    "P27": "Which country's passport would {subject} hold?",
    "P30": "On which continent would you look for {subject}?",
    "P31": "What kind of thing is {subject}?",
    "P36": "From which city is {subject} governed?",
    "P37": "Which language do the authorities of {subject} use?",
    "P39": "Which office did {subject} hold?",
    "P47": "Which of these is a neighbour of {subject}?",
    "P101": "To which field did {subject} contribute?",
    "P103": "Which language did {subject} grow up with?",
    "P106": "What did {subject} do for a living?",
    "P108": "Who paid the salary of {subject}?",
    "P127": "To whom does {subject} belong?",
    "P131": "Which district, state or region includes {subject}?",
    "P136": "Which genre is {subject} known for?",
    "P138": "Where does the name of {subject} come from?",
    "P140": "Which faith does {subject} follow?",
    "P159": "In which city does {subject} have its head office?",
    "P176": "Which company makes {subject}?",
    "P178": "Who wrote or built {subject}?",
    "P190": "With which of these places is {subject} twinned?",
    "P264": "Which label releases the records of {subject}?",
    "P276": "Where would a visitor see {subject}?",
    "P279": "Which broader class includes {subject}?",
    "P361": "What larger whole includes {subject}?",
    "P364": "In which language was {subject} first shown?",
    "P407": "Which language would a reader of {subject} need?",
    "P413": "Which role does {subject} take in a team?",
    "P449": "Which broadcaster first showed {subject}?",
    "P463": "Which body counts {subject} among its members?",
    "P495": "Which country does {subject} come from?",
    "P527": "Which of these is contained in {subject}?",
    "P530": "With which of these does {subject} exchange ambassadors?",
    "P740": "In which place did {subject} get started?",
    "P937": "In which city did {subject} do their work?",
    "P1001": "In which country does {subject} apply?",
    "P1303": "Which instrument is {subject} heard on?",
    "P1376": "Of which country or region is {subject} the seat of government?",
    "P1412": "Which language would you hear from {subject}?",
}
"""Wikidata property -> a question in everyday words."""


def letter(index: int) -> str:
    return ascii_uppercase[index]


def lettered(options: Sequence[str]) -> str:
    """``A: Germany``, one a line."""
    return "\n".join(f"{letter(index)}: {option}" for index, option in enumerate(options))


def _small_letters(options: Sequence[str]) -> str:
    return "\n".join(f"{letter(index).lower()}) {option}" for index, option in enumerate(options))


def _listed(options: Sequence[str]) -> str:
    return "\n".join(f"- {option}" for option in options)


def _numbered(options: Sequence[str]) -> str:
    return "\n".join(f"{number}. {option}" for number, option in enumerate(options, 1))


def _separated(options: Sequence[str]) -> str:
    return "Options: " + "; ".join(options)


def _as_alternatives(options: Sequence[str]) -> str:
    return f"Is it {', '.join(options[:-1])} or {options[-1]}?"


LAYOUTS = (lettered, lettered, _small_letters, _numbered, _listed, _separated, _as_alternatives)
"""Layouts of the options of training and test questions. Each puts a space before an option: with it, an option has the
tokens that it has in a sentence."""


def in_one_line(options: Sequence[str]) -> str:
    """``(1) Germany (2) France``: the layout of unseen wordings."""
    return " ".join(f"({number}) {option}" for number, option in enumerate(options, 1))


def unseen_question(relation: str, label: str, subject: str) -> str:
    """The question in words that no frame has."""
    return _BY_RELATION.get(relation, _ANY_RELATION).format(subject=subject, label=label)
