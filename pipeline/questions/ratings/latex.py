"""Faults of LaTeX that keep a text from being rendered. Linear in its length; nothing is evaluated."""

import re
from collections.abc import Iterable, Iterator, Sequence

_DRAWING = re.compile(r"\[asy\].*?\[/asy\]|\\begin\{(asy|tikzpicture)\}.*?\\end\{\1\}", re.DOTALL)
_COMMENT = re.compile(r"(?<!\\)%[^\n]*")
_WORDS = re.compile(r"\\(?:text\w*|mbox|hbox)\s*\{[^{}]*\}")
_TOKEN = re.compile(
    r"\\(?P<edge>begin|end)\s*\{(?P<name>[a-zA-Z]+\*?)\}|\\(?P<command>[a-zA-Z]+)|\\.|\$\$|[{}$]|(?P<letters>[a-zA-Z]+)",
    re.DOTALL,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_PAIRS = (("{", "}"), (r"\[", r"\]"), (r"\(", r"\)"), (r"\left", r"\right"))
_NAMES = frozenset(
    "frac dfrac tfrac sqrt cdot cdots ldots dots times angle triangle theta alpha beta gamma delta lambda omega left right"
    " lfloor rfloor lceil rceil binom begin end overline equiv infty circ mathbb mathbf mathrm text pmod leq geq neq"
    " sum prod int quad boxed operatorname".split()
)
"""Commands that mean nothing in a formula without their backslash."""
_COMMANDS = frozenset(
    """
    above allowbreak alpha angle approx arccos arccot arcsin arctan arg arraystretch ast asymp atop backslash bar
    begingroup beta bf bfseries big bigcap bigcirc bigcup bigg biggl biggr bigl bigoplus bigr bigstar bigtriangleup
    binom blacksquare bmod bold boldsymbol bot bowtie box boxed breve bullet cal cancel cancelto cap caption cdot
    cdotp cdots centering centerline centerdot cfrac check checkmark chi choose circ circle clubsuit cline color colon
    complement cong cos cosh cot coth csc cup curlyvee curlywedge dag dagger dbinom ddot ddots deg delta det dfrac
    diagdown diagup diamond diamondsuit dim displaylimits displaystyle div dot doteq dots dotsb dotsc dotsi dotsm dotso
    downarrow ell em emph emptyset endgroup enspace epsilon equal equiv eqref eta euro exists exp fbox fint flat footnote
    footnotesize forall frac framebox frown gamma gcd ge geq geqq geqslant gets gg ggg grave gt hat hbar hbox heartsuit
    hdots hfill hline hom hookrightarrow hphantom href hskip hspace hss huge iff iiint iint imath implies impliedby in
    includegraphics indent inf infty injlim int intercal intertext iota it item itshape jmath kappa kern ker label lambda
    land langle large lbrace lbrack lceil ldotp ldots le left leftarrow leftrightarrow leftrightarrows leq leqq leqslant
    let lfloor lg lhd lhook lim liminf limits limsup ll llcorner lll ln lnot log longleftarrow longleftrightarrow
    longmapsto longrightarrow lor lower lozenge lrcorner lt lvert lVert makebox mapsto mathbb mathbf mathbin mathcal
    mathclose mathfrak mathit mathop mathopen mathord mathrel mathring mathrm mathscr mathsf mathstrut mathtt max mbox
    measuredangle mho mid middle min mkern mod models mp mskip mu multicolumn multirow nabla natural ne nearrow neg neq
    newcommand newline nexists ngeq nleq ni nmid noalign noindent nolimits nonumber nobreak normalsize not notin
    nparallel nsubseteq nu nwarrow odot oint omega ominus operatorname operatornamewithlimits oplus oslash otimes over
    overarc overbrace overleftarrow overleftrightarrow overline overparen overrightarrow overset parallel parbox partial
    perp phantom phi pi pitchfork pm pmatrix pmb pmod pod pounds prec preceq prime prod propto psi qed qquad quad raise
    raisebox rangle rbrace rbrack rceil ref renewcommand rfloor rhd rho right rightarrow rightharpoonup rightleftharpoons
    rightsquigarrow rlap llap rm root rule rvert rVert sc scriptscriptstyle scriptsize scriptstyle searrow sec section sf
    setlength setminus sf sharp shortmid shoveleft shoveright sideset sigma sim simeq sin sinh sl small smallfrown
    smallsetminus smallskip medskip bigskip smallsmile smile spadesuit sqcap sqcup sqrt square sqsubseteq stackrel star
    strut subset subseteq subsetneq substack succ succeq sum sup supset supseteq supsetneq surd swarrow tabularnewline tag
    tan tanh tau tbinom text textbf textcolor textdegree textit textnormal textrm textsc textsf textstyle texttt textup
    tfrac therefore because theta thickspace thinspace tilde times tiny to top triangle triangledown triangleleft
    triangleq triangleright tt twoheadrightarrow underbrace underline underrightarrow underset unicode unlhd unrhd
    uparrow updownarrow uplus upsilon url varepsilon varinjlim varkappa varliminf varlimsup varnothing varphi varpi
    varprojlim varrho varsigma vartheta vartriangle vbox vcenter vdash vdots vec vee vert Vert verb vfill vline vphantom
    vskip vspace wedge widehat widetilde wp wr xi xleftarrow xmapsto xrightarrow zeta
    Alpha Arrowvert Bbb Bbbk Beta Big Bigg Biggl Biggr Bigl Bigm Bigr Box Bumpeq Cap Chi Cup Delta Diamond Downarrow Epsilon
    Eta Gamma Huge Im Iota Join Kappa LARGE LaTeX Lambda Large Leftarrow Leftrightarrow Longleftarrow Longleftrightarrow
    Longrightarrow Mu Nu Omega Omicron P Phi Pi Pr Psi RR CC NN QQ ZZ Re Rho Rightarrow S Sigma Subset Supset Tau TeX
    Theta Uparrow Upsilon Vdash Vert Xi Zeta bigl bigm biggm nsim ncong nequiv nsubset nsupseteq nless ngtr dotplus
    upharpoonright restriction aleph beth lesssim gtrsim lessgtr gtrless approxeq thicksim thickapprox eqsim mathnormal
    bm ensuremath nicefrac sfrac hslash eth digamma degree celsius ohm per SI si num unit minus plus cr def or and
    c d n v x r u o k b H L O AA AE OE aa ae oe ss l i j y t a p z w AB BC CA AC
    """.split()
)
r"""Commands of LaTeX, amsmath, and what the data sets in use define: a name that is not here is a slip (``\farc``)."""


def latex_faults(text: str) -> list[str]:
    """What is wrong, once for each fault."""
    faults = [f"a drawing: {fault}" for code in _DRAWING.finditer(text) for fault in _unbalanced(code[0], ["{}"])]
    text = _COMMENT.sub("", without_drawings(text))
    tokens = list(_TOKEN.finditer(text))
    faults += [*_unbalanced([token[0] for token in tokens], _PAIRS), *_environments(tokens), *_unknown(tokens)]
    faults += _formulas(list(_TOKEN.finditer(_WORDS.sub(" ", text))))
    if "[asy]" in text:
        faults.append("[asy] has no end")
    if control := _CONTROL.search(text):
        faults.append(f"a control character, {control[0]!r}, stands for a backslash")
    return faults


def without_drawings(text: str) -> str:
    return _DRAWING.sub(" ", text)


def _unbalanced(signs: Sequence[str], pairs: Iterable[Sequence[str]]) -> Iterator[str]:
    for opening, closing in pairs:
        depth = lowest = 0
        for sign in signs:
            depth += (sign == opening) - (sign == closing)
            lowest = min(lowest, depth)
        if depth or lowest:
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
    return (rf"\{name} is no command" for name in names if name not in _COMMANDS)


def _formulas(tokens: list[re.Match[str]]) -> Iterator[str]:
    """Dollar signs that do not pair, and names in formulas that lack their backslash."""
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
