"""LaTeX faults that keep a text from being rendered. Takes time linear in its length and evaluates nothing."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

_DRAWING = re.compile(r"\[(/?)asy\]|\\(begin|end)\{(?:asy|tikzpicture)\}")
_COMMENT = re.compile(r"(?<!\\)%[^\n]*")
_SIZED = re.compile(r"\\(?:left|right|middle|[bB]igg?[lrm]?)\s*\\[{}]")
_WORDS = re.compile(r"\\(?:text\w*|mbox|hbox)\s*\{[^{}]*\}")
_TOKEN = re.compile(
    r"\\(?P<edge>begin|end)\s*\{(?P<name>[a-zA-Z]+\*?)\}|\\(?P<command>[a-zA-Z]+)|\\.|\$\$|[{}$]|(?P<letters>[a-zA-Z]+)",
    re.DOTALL,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_PAIRS = (("{", "}"), (r"\[", r"\]"), (r"\(", r"\)"), (r"\left", r"\right"))
_NAMES = frozenset(
    re.findall(
        r"\w+",
        """
    frac dfrac tfrac sqrt cdot cdots ldots dots times angle triangle theta alpha beta gamma delta lambda omega left
    right lfloor rfloor lceil rceil binom begin end overline equiv infty circ mathbb mathbf mathrm text pmod leq geq
    neq sum prod int quad boxed operatorname
    """,
    )
)
"""Command names that make no sense in a formula without their backslash."""
_COMMANDS = frozenset(
    re.findall(
        r"\w+",
        """
    a AA aa AB above AC AE ae aleph allowbreak Alpha alpha and angle approx approxeq arccos arccot arcsin arctan arg
    arraystretch Arrowvert ast asymp atop b backslash bar Bbb Bbbk BC because begingroup Beta beta beth bf bfseries
    Big big bigcap bigcirc bigcup Bigg bigg Biggl biggl biggm Biggr biggr Bigl bigl Bigm bigm bigoplus Bigr bigr
    bigskip bigstar bigtriangleup binom blacksquare bm bmod bold boldsymbol bot bowtie Box box boxed breve bullet
    Bumpeq c CA cal cancel cancelto Cap cap caption CC cdot cdotp cdots celsius centerdot centering centerline cfrac
    check checkmark Chi chi choose circ circle cline clubsuit colon color complement cong cos cosh cot coth cr csc
    Cup cup curlyvee curlywedge d dag dagger dbinom ddot ddots def deg degree Delta delta det dfrac diagdown diagup
    Diamond diamond diamondsuit digamma dim displaylimits displaystyle div dot doteq dotplus dots dotsb dotsc dotsi
    dotsm dotso Downarrow downarrow ell em emph emptyset endgroup enspace ensuremath Epsilon epsilon eqref eqsim
    equal equiv Eta eta eth euro exists exp fbox fint flat footnote footnotesize forall frac framebox frown Gamma
    gamma gcd ge geq geqq geqslant gets gg ggg grave gt gtrless gtrsim H hat hbar hbox hdots heartsuit hfill hline
    hom hookrightarrow hphantom href hskip hslash hspace hss Huge huge i iff iiint iint Im imath impliedby implies
    in includegraphics indent inf infty injlim int intercal intertext Iota iota it item itshape j jmath Join k Kappa
    kappa ker kern L l label Lambda lambda land langle LARGE Large large LaTeX lbrace lbrack lceil ldotp ldots le
    left Leftarrow leftarrow Leftrightarrow leftrightarrow leftrightarrows leq leqq leqslant lessgtr lesssim let
    lfloor lg lhd lhook lim liminf limits limsup ll llap llcorner lll ln lnot log Longleftarrow longleftarrow
    Longleftrightarrow longleftrightarrow longmapsto Longrightarrow longrightarrow lor lower lozenge lrcorner lt
    lVert lvert makebox mapsto mathbb mathbf mathbin mathcal mathclose mathfrak mathit mathnormal mathop mathopen
    mathord mathrel mathring mathrm mathscr mathsf mathstrut mathtt max mbox measuredangle medskip mho mid middle
    min minus mkern mod models mp mskip Mu mu multicolumn multirow n nabla natural ncong ne nearrow neg neq nequiv
    newcommand newline nexists ngeq ngtr ni nicefrac nleq nless nmid NN noalign nobreak noindent nolimits nonumber
    normalsize not notin nparallel nsim nsubset nsubseteq nsupseteq Nu nu num nwarrow O o odot OE oe ohm oint Omega
    omega Omicron ominus operatorname operatornamewithlimits oplus or oslash otimes over overarc overbrace
    overleftarrow overleftrightarrow overline overparen overrightarrow overset P p parallel parbox partial per perp
    phantom Phi phi Pi pi pitchfork plus pm pmatrix pmb pmod pod pounds Pr prec preceq prime prod propto Psi psi qed
    QQ qquad quad r raise raisebox rangle rbrace rbrack rceil Re ref renewcommand restriction rfloor rhd Rho rho
    right Rightarrow rightarrow rightharpoonup rightleftharpoons rightsquigarrow rlap rm root RR rule rVert rvert S
    sc scriptscriptstyle scriptsize scriptstyle searrow sec section setlength setminus sf sfrac sharp shortmid
    shoveleft shoveright SI si sideset Sigma sigma sim simeq sin sinh sl small smallfrown smallsetminus smallskip
    smallsmile smile spadesuit sqcap sqcup sqrt sqsubseteq square ss stackrel star strut Subset subset subseteq
    subsetneq substack succ succeq sum sup Supset supset supseteq supsetneq surd swarrow t tabularnewline tag tan
    tanh Tau tau tbinom TeX text textbf textcolor textdegree textit textnormal textrm textsc textsf textstyle texttt
    textup tfrac therefore Theta theta thickapprox thicksim thickspace thinspace tilde times tiny to top triangle
    triangledown triangleleft triangleq triangleright tt twoheadrightarrow u underbrace underline underrightarrow
    underset unicode unit unlhd unrhd Uparrow uparrow updownarrow upharpoonright uplus Upsilon upsilon url v
    varepsilon varinjlim varkappa varliminf varlimsup varnothing varphi varpi varprojlim varrho varsigma vartheta
    vartriangle vbox vcenter Vdash vdash vdots vec vee verb Vert vert vfill vline vphantom vskip vspace w wedge
    widehat widetilde wp wr x Xi xi xleftarrow xmapsto xrightarrow y z Zeta zeta ZZ
    """,
    )
)
r"""Commands of LaTeX, amsmath and the data sets in use. Any other name counts as a slip (``\farc``)."""


def latex_faults(text: str) -> list[str]:
    """A description of each fault."""
    text, drawings = _divided(text)
    faults = [f"a drawing: {fault}" for code in drawings for fault in _drawing(code)]
    text = _COMMENT.sub("", text)
    tokens = list(_TOKEN.finditer(text))
    faults += [*_unbalanced([token[0] for token in tokens], _PAIRS), *_environments(tokens), *_unknown(tokens)]
    faults += _unbalanced([token[0] for token in _TOKEN.finditer(_SIZED.sub(" ", text))], [(r"\{", r"\}")])
    faults += _formulas(list(_TOKEN.finditer(_WORDS.sub(" ", text))))
    if "[asy]" in text:
        faults.append("[asy] has no end")
    if control := _CONTROL.search(text):
        faults.append(f"a control character, {control[0]!r}, stands for a backslash")
    return faults


def without_drawings(text: str) -> str:
    return _divided(text)[0]


def _divided(text: str) -> tuple[str, list[str]]:
    """The text without its drawings, and the code of these. A drawing without an end stays in the text."""
    kept, drawings, start, opened = [], [], 0, None
    for mark in _DRAWING.finditer(text):
        is_end = mark[1] == "/" or mark[2] == "end"
        if not is_end and opened is None:
            opened = mark
        elif is_end and opened is not None:
            kept.append(text[start : opened.start()])
            drawings.append(text[opened.end() : mark.start()])
            start, opened = mark.end(), None
    return " ".join([*kept, text[start:]]), drawings


def _drawing(code: str) -> Iterator[str]:
    yield from _unbalanced(code, ["{}"])
    if code.replace("\\$", "").count("$") % 2:
        yield "a dollar sign lacks its partner"


def _unbalanced(signs: Sequence[str], pairs: Iterable[Sequence[str]]) -> Iterator[str]:
    for opening, closing in pairs:
        depths = list(accumulate(1 if sign == opening else -1 for sign in signs if sign in (opening, closing)))
        if depths and (depths[-1] or min(depths) < 0):
            yield f"{opening} and {closing} do not balance"


def _environments(tokens: list[re.Match[str]]) -> Iterator[str]:
    opened: list[str] = []
    for token in tokens:
        if token["edge"] == "begin":
            opened.append(token["name"])
        elif token["edge"] == "end" and (not opened or opened.pop() != token["name"]):
            yield rf"\end{{{token['name']}}} ends nothing"
            return
    if opened:
        yield rf"\begin{{{opened[-1]}}} has no end"


def _unknown(tokens: list[re.Match[str]]) -> Iterator[str]:
    names = dict.fromkeys(token["command"] for token in tokens if token["command"])
    yield from (rf"\{name} is no command" for name in names if name not in _COMMANDS)
    yield from (f"{token[0]} is no command" for token in tokens if re.fullmatch(r"\\[0-9]", token[0]))


def _formulas(tokens: list[re.Match[str]]) -> Iterator[str]:
    """Unpaired dollar signs, and commands in formulas that lack their backslash."""
    closing = ""
    for token in tokens:
        sign = token[0]
        if sign in ("$", "$$"):
            if closing == "$$" and sign == "$":
                yield "$$ is closed by $"
                return
            closing = "" if sign == closing else closing or sign  # $$ closes and opens $, as in $a$$b$
        elif closing and token["letters"] in _NAMES:
            yield f"{sign} lacks its backslash"
    if closing:
        yield f"{closing} is not closed"
