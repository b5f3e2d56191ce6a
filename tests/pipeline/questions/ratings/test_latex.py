import pytest

from pipeline.questions.ratings.latex import latex_faults

FINE = [
    r"What is $\frac{1}{2}$ of \$5?",
    r"\[f(x) = \left\{ \begin{array}{cl} x & \text{if } x > 0, \\ 0 & \text{else} \end{array} \right.\]",
    r"$a$$b$ and $$\sqrt[3]{8}$$",
    r"$\{1, 2\}$ has $50\%$ of them",
    r"See [asy] label(\"$x$\", (0,0)); [/asy]",
    r"$\text{frac is a word here, as in $x$}$",
]
FAULTS = {
    r"$\frac{1}{2$ is half": "{ and } do not balance",
    r"What is $x + 1?": "$ is not closed",
    r"$$x + 1$ is odd": "$$ is closed by $",
    r"$\farc{1}{2}$": r"\farc is no command",
    r"$frac{1}{2}$": "frac lacks its backslash",
    r"$\left( x )$": r"\left and \right do not balance",
    r"\begin{array}{c} 1": r"\begin{array} has no end",
    r"\end{array}": r"\end{array} ends nothing",
    r"\[x + 1": r"\[ and \] do not balance",
    r"the set $\1, 2\}$": r"\1 is no command",
    r"the set $\{1, 2$": r"\{ and \} do not balance",
    "$\x0crac{1}{2}$": r"a control character, '\x0c', stands for a backslash",
    "[asy] draw(": "[asy] has no end",
    '[asy] label("$x"); [/asy]': "a drawing: a dollar sign lacks its partner",
}


@pytest.mark.parametrize("text", FINE)
def test_good_latex_has_no_fault(text):
    assert latex_faults(text) == []


@pytest.mark.parametrize(("text", "fault"), FAULTS.items())
def test_a_fault_is_named(text, fault):
    assert fault in latex_faults(text)
