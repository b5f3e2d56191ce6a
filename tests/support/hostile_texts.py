"""Hostile inputs for the verifier: (name, completion, gold) triples.

Nothing here is meant to be executed. A payload that did run would only create a file
under /tmp/gradus_canary*, sleep, or end the worker. Delete these files before a run
and look for them after it.

The table is laid out by hand.
"""

# fmt: off
import random

CANARY = "/tmp/gradus_canary"

# hostile() leaves these out to stay near 260 rows; hostile(everything=True) has them all.
EXTRA = {
    "power": """
        tower3_star mixed_syntax factorial_100_marks binomial_of_factorials fraction_exponent
        scientific_times quotient_of_factorials gamma exp_exp_exp plain_braces_tower
    """.split(),
    "nesting": """
        paren_100 bracket_100 brace_100 sqrt_1000 left_paren_100 frac_100000 bracket_1000 brace_10000
        left_paren_10000 paren_10000 sqrt_100 bracket_100000 left_paren_1000 frac_100 brace_1000
        subscript_3000
    """.split(),
    "size": """
        digits_1M_fraction zeros_1M words_1M newlines_1M product_of_twos_300000 bold_300000 hash_300000
        dollars_pairs_300000
    """.split(),
    "regex": """
        the_answer_is_colon digits_commas dots minus_digit hash_newlines times frac_incomplete lt_run
    """.split(),
    "simplify": """
        sqrt_product_60 cube_roots tan_sum integral_rational limit matrix_symbolic_40 expand_product_60
        rational_many_vars sum_nested equation_transcendental inequality_degree_40 system_20 set_difference
        piecewise log_sum
    """.split(),
    "inject": """
        import_os_system_box compile pathlib lambda_default comprehension walrus semicolon sympy_parse_expr
        sympy_method_call sympy_preview sympy_mul_power fstring_nested percent_format shell_semicolon
        shell_pipe double_quote_break triple_quote_break pickle_bytes yaml_document json_unicode_escape
        protocol_true protocol_crlf latex_input latex_newcommand latex_csname html_script frac_of_calls
        operatorname numpy_load symbol_assumption decorator_class getattr_concat print_reply
    """.split(),
    "control": """
        nul_only all_c1 carriage_return lone_low_surrogate surrogateescape bidi_isolates combining_mixed
        emoji_keycap zero_width digits_devanagari roman_unicode hangul_jamo private_use exotic_spaces
        bom_only spaces_only not_sign_overlay
    """.split(),
    "zero": """
        zero_over_zero cot_zero sec log_base_zero mod_percent infinity_over nan_nan minus_inf infinity_word
        zoo gamma_pole interval ratio base_zero zeroth_root empty_frac
    """.split(),
    "gold": """
        empty_dollars zero_width bidi tower_both factorials letters_1M frac_5000 poly_10000 lone_left
        infinite_both sin_sum radicals union_1000 inject_box inject_yaml protocol_json
    """.split(),
}


def hostile(everything: bool = False, divisor: int = 1) -> list[tuple[str, str, str]]:
    """The table. ``divisor`` shortens the long texts; names give the undivided sizes."""
    extra = set() if everything else {k + ":" + n for k, ns in EXTRA.items() for n in ns}
    rows: list[tuple[str, str, str]] = []
    seen: set[str] = set()

    def put(name, completion, gold):
        if name in seen:
            raise ValueError("duplicate name " + name)
        seen.add(name)
        if name in extra:
            return
        rows.append((name, completion, gold))

    def tag(name, body, gold):
        put(name, "Let me see.\n<answer>" + body + "</answer>", gold)

    def box(name, body, gold):
        put(name, "Therefore the answer is $\\boxed{" + body + "}$.", gold)

    def raw(name, text, gold):
        put(name, text, gold)

    def big(size):
        return size // divisor

    count = [0]

    def canary():
        count[0] += 1
        return "%s_%d" % (CANARY, count[0])

    # ------------------------------------------------------------ power
    P = "power:"
    tag(P + "tower4_caret", "9^9^9^9", "9^9^9")
    tag(P + "tower3_star", "10**10**10", "10**10**9")
    box(P + "tower_latex", "9^{9^{9^{9}}}", "9^{9^{9^{8}}}")
    box(P + "two_to_1e12", "2^{10^{12}}", "2^{10^{11}}")
    tag(P + "two_to_1e12_star", "2**(10**12)", "4**(5*10**11)")
    box(P + "left_assoc", "((((9^9)^9)^9)^9)^9", "9^{59049}")
    box(P + "tower_of_20_twos", "2^{" * 19 + "2" + "}" * 19, "2^{16}")
    box(P + "tower_of_200_tens", "10^{" * 199 + "10" + "}" * 199, "10^{10}")
    tag(P + "tower_of_1000_star", "**".join(["7"] * 1000), "7**7")
    tag(P + "tower_of_1000_caret", "^".join(["3"] * 1000), "3^{27}")
    tag(P + "mixed_syntax", "9**{9^{9**(9^9)}}", "9^{81}")
    tag(P + "unicode_superscripts", "9⁹⁹⁹⁹⁹⁹⁹⁹⁹", "9⁹⁹")
    tag(P + "unicode_nested", "9^(9⁹⁹⁹⁹)", "9^9")
    box(P + "factorial_1e9", "(10^9)!", "(10^9-1)!")
    tag(P + "factorial_99999999", "99999999!", "99999998!\\cdot 99999999")
    tag(P + "factorial_six_times", "5!!!!!!", "5!")
    tag(P + "factorial_100_marks", "3" + "!" * 100, "720")
    box(P + "factorial_nested", "((((4!)!)!)!)!", "24!")
    tag(P + "factorial_word", "factorial(factorial(factorial(20)))", "factorial(20)")
    box(P + "binomial_huge", "\\binom{10^9}{5*10^8}", "\\binom{10^9}{5*10^8-1}")
    box(P + "binomial_nested", "\\binom{\\binom{1000}{500}}{\\binom{100}{50}}", "\\binom{1000}{500}")
    box(P + "binomial_of_factorials", "\\dbinom{1000!}{500!}", "\\dbinom{1000}{500}")
    box(P + "negative_exponent", "2^{-10^{12}}", "0")
    box(P + "tiny_difference", "1 + 10^{-10^{10}}", "1")
    box(P + "fraction_exponent", "2^{\\frac{10^{15}+1}{3}}", "2^{\\frac{10^{15}}{3}}")
    box(P + "root_of_power", "\\sqrt[10^9]{2^{10^{18}}}", "2^{10^9}")
    box(P + "irrational_power", "(1+\\sqrt{2})^{10^7}", "(1+\\sqrt{2})^{10^6}")
    box(P + "complex_power", "(3+4i)^{10^8}", "(3+4i)^{2}")
    box(P + "mod_power", "7^{7^{7^{7}}} \\bmod 10^{1000}", "7^{7} \\bmod 10")
    tag(P + "scientific_huge_exponent", "1e999999999", "1e999999998")
    tag(P + "scientific_times", "3.0 \\times 10^{99999999999}", "3.0 \\times 10^{99999999998}")
    tag(P + "scientific_negative", "1e-999999999999", "0")
    tag(P + "product_of_powers", "*".join("%d**%d" % (p, 10 ** 8 + p) for p in range(2, 60)), "2**100")
    box(P + "quotient_of_factorials", "\\frac{(10^8)!}{(10^8-1)!}", "10^8")
    box(P + "exp_exp_exp", "e^{e^{e^{e^{e}}}}", "e^{e^{e}}")
    tag(P + "exp_words", "exp(exp(exp(exp(exp(exp(10))))))", "exp(10)")
    tag(P + "gamma", "gamma(10**9+1)", "(10**9)!")
    box(P + "base_conversion", "Z" * 5000 + "_{36}", "123_{36}")
    box(P + "power_with_symbol", "x^{9^{9^{9}}}", "x^{9^{9}}")
    tag(P + "fibonacci", "fibonacci(10**10)", "55")
    tag(P + "shift", "1<<(1<<40)", "2^{40}")
    box(P + "plain_braces_tower", "{{{9}^{9}}^{{9}^{9}}}^{{9}^{9}}", "9^{9}")

    # ------------------------------------------------------------ nesting
    N = "nesting:"
    pairs = [("paren", "(", ")"), ("bracket", "[", "]"), ("brace", "{", "}"), ("frac", "\\frac{1}{1+", "}"),
             ("sqrt", "\\sqrt{", "}"), ("left_paren", "\\left(", "\\right)")]
    for label, o, c in pairs:
        for e in (2, 3, 4, 5, 6):
            size = 300_000 if e == 6 and label in ("frac", "left_paren") else 10 ** e
            n = big(size) if e > 4 else size
            body = o * n + "1" + c * n
            if (e + len(label)) % 2:
                tag("%s%s_%d" % (N, label, size), body, "2")
            else:
                box("%s%s_%d" % (N, label, size), body, "2")
    tag(N + "open_only_paren_100000", "(" * big(100_000) + "1", "1")
    tag(N + "open_only_brace_100000", "{" * big(100_000) + "1", "1")
    tag(N + "close_only_100000", "1" + ")" * big(100_000), "1")
    tag(N + "mixed_30000", "([{" * big(30_000) + "7" + "}])" * big(30_000), "7")
    tag(N + "mismatched_50000", "([" * big(50_000) + "7" + ")]" * big(50_000), "7")
    tag(N + "minus_100001", "-" * big(100_001) + "1", "-1")
    tag(N + "minus_paren_5000", "-(" * 5_000 + "1" + ")" * 5_000, "1")
    tag(N + "abs_2000", "|" * 2_000 + "x" + "|" * 2_000, "|x|")
    box(N + "superscript_3000", "x^{" * 3_000 + "2" + "}" * 3_000, "x^{2}")
    box(N + "subscript_3000", "a_{" * 3_000 + "1" + "}" * 3_000, "a_{1}")
    box(N + "sin_3000", "\\sin(" * 3_000 + "1" + ")" * 3_000, "\\sin(\\sin(1))")
    box(N + "text_10000", "\\text{" * big(10_000) + "7" + "}" * big(10_000), "8")
    raw(N + "boxed_10000", "\\boxed{" * big(10_000) + "7" + "}" * big(10_000), "8")
    raw(N + "answer_tags_20000", "<answer>" * big(20_000) + "7" + "</answer>" * big(20_000), "8")
    raw(N + "think_tags_50000", "<think>" * big(50_000) + "7" + "</think>" * big(50_000) + "<answer>7</answer>", "8")
    tag(N + "set_of_sets_300", "\\{" * 300 + "1" + "\\}" * 300, "\\{1\\}")
    tag(N + "tuples_tree", _tree(13), "(1,2)")
    box(N + "pmatrix_150", "\\begin{pmatrix}" * 150 + "1" + "\\end{pmatrix}" * 150, "\\begin{pmatrix}1\\end{pmatrix}")

    # ------------------------------------------------------------ size
    S = "size:"
    M = big(1_000_000)
    rnd = random.Random(7)
    digits = "".join(rnd.choices("123456789", k=M))
    tag(S + "digits_1M", digits, digits[:-1] + "0")
    tag(S + "digits_1M_equal", digits, "+" + digits)
    tag(S + "digits_1M_fraction", digits[:M // 2] + "/" + digits[M // 2:], "1/2")
    tag(S + "decimal_1M", "0." + digits, "0." + digits[:20])
    tag(S + "zeros_1M", "1." + "0" * M, "1")
    tag(S + "leading_zeros_1M", "0" * M + "7", "7")
    tag(S + "letters_1M", "a" * M, "b")
    tag(S + "words_1M", "lorem ipsum " * big(90_000), "lorem")
    tag(S + "spaces_1M", "4" + " " * M + "2", "42")
    tag(S + "newlines_1M", "\n" * M + "7", "8")
    tag(S + "backslashes_1M", "\\" * M, "\\frac{1}{2}")
    tag(S + "dollars_1M", "$" * M + "5" + "$" * M, "6")
    tag(S + "commas_1M", "1" + "," * M + "2", "1,2")
    tag(S + "list_300000", ",".join(map(str, range(big(300_000)))), "1,2,3")
    tag(S + "sum_of_ones_500000", "+".join(["1"] * big(500_000)), "500000")
    tag(S + "product_of_twos_300000", "*".join(["2"] * big(300_000)), "2**300000")
    tag(S + "poly_20000_terms", "+".join("x^%d" % i for i in range(1, big(20_001))), "x+x^2")
    tag(S + "many_symbols_5000", "+".join("x_{%d}" % i for i in range(5_000)), "x_{1}+x_{2}")
    raw(S + "open_tags_300000", "<answer>" * big(300_000), "1")
    raw(S + "closed_tags_100000", "<answer>7</answer>" * big(100_000), "8")
    raw(S + "unclosed_boxes_300000", "\\boxed{" * big(300_000) + "7", "8")
    raw(S + "closed_boxes_100000", "\\boxed{7} " * big(100_000), "8")
    raw(S + "reasoning_5M_then_answer", "<think>" + "we add 1 and get 2. " * big(250_000) + "</think><answer>7</answer>", "8")
    raw(S + "dollars_pairs_300000", "$x$ " * big(300_000) + "<answer>7</answer>", "8")
    raw(S + "bold_300000", "**" * big(300_000) + "7", "8")
    raw(S + "hash_300000", "####" * big(300_000) + " 7", "8")
    raw(S + "backticks_1M", "`" * M + "7", "8")
    tag(S + "percent_chain", "50" + "%" * big(100_000), "50%")
    tag(S + "equals_chain_50000", "=".join(["x"] * big(50_000)) + "=3", "x=3")
    tag(S + "plus_minus_30", " \\pm ".join(["1"] * 31), "\\pm 1")
    tag(S + "matrix_300x300", "\\begin{pmatrix}" + "\\\\".join("&".join(str(i * j) for j in range(300)) for i in range(300))
        + "\\end{pmatrix}", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}")
    tag(S + "repeating_decimal", "0.\\overline{" + digits[:big(200_000)] + "}", "0.\\overline{1}")

    # ------------------------------------------------------------ regex
    X = "regex:"
    raw(X + "the_answer_is_100000", "the answer is " * big(100_000), "7")
    raw(X + "the_answer_is_colon", "The answer is: " * big(100_000) + "7", "8")
    raw(X + "final_answer_100000", "Final answer:" * big(100_000), "7")
    raw(X + "the_answer_spaces", "the answer" + " " * big(500_000) + "is" + " " * big(500_000), "7")
    raw(X + "final_spaces_answer", ("Final" + " " * 1000) * big(1000), "7")
    raw(X + "digits_commas", "1,234," * big(200_000) + "x", "1,234")
    tag(X + "groups_of_three", ",".join(["111"] * big(200_000)) + "x", "111,111")
    tag(X + "groups_bad_tail", "1" + ",000" * big(200_000) + ",00", "1,000")
    tag(X + "digits_then_letter", "1" * big(200_000) + "!x", "1")
    tag(X + "dots", "1." * big(300_000), "1.1")
    tag(X + "minus_digit", "-1" * big(300_000), "-1")
    raw(X + "nested_quantifier", "a" * big(200_000) + "!", "a")
    raw(X + "whitespace_then_x", "<answer>" + " " * big(500_000) + "x", "x")
    raw(X + "tag_almost_closed", "<answer>7</answer" * big(60_000), "7")
    raw(X + "lt_run", "<" * big(1_000_000), "7")
    raw(X + "stars_and_text", "**a" * big(200_000), "a")
    raw(X + "boxed_space_runs", ("\\boxed" + " " * 300) * big(3_000), "7")
    tag(X + "frac_incomplete", "\\frac" * big(200_000), "\\frac12")
    tag(X + "text_unclosed", "\\text{" * big(200_000), "a")
    tag(X + "left_without_right", "\\left" * big(200_000) + "(1", "1")
    tag(X + "begin_without_end", "\\begin{pmatrix}1" * big(20_000), "\\begin{pmatrix}1\\end{pmatrix}")
    tag(X + "or_hedge", "1 or " * big(200_000) + "2", "2")
    tag(X + "choice_letters", "(A) " * big(200_000), "A")
    tag(X + "times", "12:34:" * big(150_000), "12:34")
    tag(X + "units_run", "5" + " km" * big(200_000), "5 km")
    tag(X + "degrees", "45" + "^\\circ" * big(100_000), "45^\\circ")
    raw(X + "hash_newlines", "#### \n" * big(150_000), "7")

    # ------------------------------------------------------------ simplify
    Y = "simplify:"
    box(Y + "sin_sum_400", " + ".join("\\sin(%d)" % i for i in range(1, 401)), "\\sin(1)")
    box(Y + "sin_cos_zero_200", " + ".join("\\sin^2(%dx)+\\cos^2(%dx)" % (i, i) for i in range(1, 201)), "200")
    box(Y + "sqrt_sum_300", " + ".join("\\sqrt{%d}" % (i * i + 1) for i in range(1, 301)), "45151")
    box(Y + "sqrt_product_60", "".join("(\\sqrt{%d}+\\sqrt{%d})" % (p, p + 2) for p in range(2, 62)), "\\sqrt{2}")
    box(Y + "nested_radicals_40", "\\sqrt{2+" * 40 + "2" + "}" * 40, "2")
    box(Y + "nested_radicals_denominator",
        "\\frac{1}{" + "+".join("\\sqrt{%d}" % p for p in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31)) + "}", "\\frac{1}{42}")
    box(Y + "cube_roots", "+".join("\\sqrt[%d]{%d+\\sqrt{%d}}" % (k, k, k + 1) for k in range(3, 40)), "\\sqrt[3]{2}")
    box(Y + "radical_denest", "\\sqrt{\\sqrt{\\sqrt{5+2\\sqrt{6}}+\\sqrt{7+4\\sqrt{3}}}+\\sqrt{11+6\\sqrt{2}}}", "\\sqrt{3}")
    box(Y + "cos_pi_fractions", "".join("\\cos\\left(\\frac{%d\\pi}{257}\\right)" % i for i in range(1, 129)), "\\frac{1}{2^{128}}")
    box(Y + "tan_sum", "+".join("\\tan\\left(\\frac{%d\\pi}{97}\\right)" % i for i in range(1, 97)), "0")
    box(Y + "integral_no_closed", "\\int_0^1 e^{\\sin(x^x)}\\sqrt{1+\\tan(x^3)}\\,dx", "\\int_0^1 e^{x}\\,dx")
    box(Y + "integral_rational", "\\int \\frac{x^{40}+1}{x^{97}+x^{31}+x+1}\\,dx", "\\int \\frac{1}{x}\\,dx")
    box(Y + "integral_ten_fold", "\\int_0^1 " * 10 + "e^{-x^2}" + "\\,dx" * 10, "\\int_0^1 e^{-x^2}\\,dx")
    box(Y + "derivative_nested", "\\frac{d}{dx}" * 30 + "\\left(\\sin(\\cos(\\tan(x^x)))\\right)", "\\frac{d}{dx}x^2")
    box(Y + "limit", "\\lim_{x\\to 0}\\frac{\\sin(\\tan x)-\\tan(\\sin x)}{\\arcsin(\\arctan x)-\\arctan(\\arcsin x)}", "1")
    box(Y + "limit_huge", "\\lim_{n\\to\\infty}\\left(1+\\frac{1}{n}\\right)^{n^{n^{n}}}", "e")
    box(Y + "determinant_30", "\\begin{vmatrix}" + "\\\\".join("&".join("x_{%d}+%d" % (i * 30 + j, i ^ j) for j in range(30))
        for i in range(30)) + "\\end{vmatrix}", "\\begin{vmatrix}1&2\\\\3&4\\end{vmatrix}")
    box(Y + "matrix_symbolic_40", "\\begin{pmatrix}" + "\\\\".join("&".join("\\frac{\\sqrt{%d}}{\\sqrt{%d}+x}" % (i + 2, j + 3)
        for j in range(40)) for i in range(40)) + "\\end{pmatrix}", "\\begin{pmatrix}x\\end{pmatrix}")
    box(Y + "matrix_power", "\\begin{pmatrix}1&1\\\\1&0\\end{pmatrix}^{10^{8}}", "\\begin{pmatrix}1&1\\\\1&0\\end{pmatrix}")
    box(Y + "expand_200", "(x+y+z)^{200}", "(x+y+z)^{199}")
    box(Y + "expand_eight_vars", "(a+b+c+d+f+g+h+k)^{40}", "(a+b+c+d+f+g+k+h)^{40}+1")
    box(Y + "expand_product_60", "".join("(x+%d)(y-%d)(z+%d)" % (i, i, 2 * i) for i in range(1, 61)), "xyz")
    box(Y + "power_minus_itself", "(x+1)^{5000}-(1+x)^{4999}(x+1)", "0")
    box(Y + "gcd_polys", "\\frac{(x^{700}-1)(x^{331}+x^7+1)}{(x^{350}-1)(x^{331}+x^7+1)}", "x^{350}+1")
    box(Y + "rational_many_vars", " + ".join("\\frac{x_{%d}+1}{x_{%d}^2+x_{%d}+%d}" % (i, i + 1, i + 2, i) for i in range(40)),
        "\\frac{x_{1}}{x_{2}}")
    box(Y + "continued_fraction_300", "1+\\cfrac{1}{" * 300 + "x" + "}" * 300, "x")
    box(Y + "sum_1e9", "\\sum_{k=1}^{10^9} \\frac{1}{k^3+\\sin k}", "\\sum_{k=1}^{10} \\frac{1}{k^3}")
    box(Y + "sum_nested", "\\sum_{a=1}^{1000}\\sum_{b=1}^{1000}\\sum_{c=1}^{1000}\\frac{1}{a^b+c}", "1000")
    box(Y + "prod_1e8", "\\prod_{k=1}^{10^8} k", "(10^8)!")
    box(Y + "prod_sines", "\\prod_{k=1}^{99999} 2\\sin\\left(\\frac{k\\pi}{100000}\\right)", "100000")
    box(Y + "equation_degree_50", "x^{50}" + "".join("%+dx^{%d}" % ((-1) ** i * (i * 7 % 31 + 1), i) for i in range(49, 0, -1)) + "+3=0",
        "x^{50}-x+3=0")
    box(Y + "equation_transcendental", "x^x+\\sin(e^x)+\\ln(\\cos x)=\\tan(x^{x^x})", "x^x=2")
    box(Y + "inequality_degree_40", "".join("(x^2-%dx+%d)" % (i, i * i + 1) for i in range(1, 21)) + " > \\sqrt{x^{39}+1}", "x > 1")
    box(Y + "system_20", ", ".join("x_{%d}^2+x_{%d}x_{%d}=%d" % (i, i + 1, i + 2, i) for i in range(20)), "x_{0}=1, x_{1}=2")
    box(Y + "set_300", "\\{" + ", ".join("\\sqrt{%d}+\\sqrt{%d}" % (i, i + 1) for i in range(1, 301)) + "\\}",
        "\\{" + ", ".join("\\sqrt{%d}+\\sqrt{%d}" % (i + 1, i) for i in range(300, 0, -1)) + "\\}")
    box(Y + "union_1000", " \\cup ".join("[%d, %d]" % (3 * i, 3 * i + 1) for i in range(1000)),
        " \\cup ".join("[%d, %d]" % (3 * i, 3 * i + 1) for i in range(999, 0, -1)))
    box(Y + "intersection_500", " \\cap ".join("(\\sqrt{%d}, \\sqrt{%d})" % (i, i + 900) for i in range(500)), "(\\sqrt{499}, \\sqrt{900})")
    box(Y + "set_difference", "\\mathbb{R} \\setminus \\{" + ", ".join("\\frac{%d\\pi}{7}" % i for i in range(800)) + "\\}", "\\mathbb{R}")
    box(Y + "log_sum", "+".join("\\log_{%d}(%d)" % (i, i + 1) for i in range(2, 300)), "\\log_{2}(300)")
    box(Y + "floor_tower", "\\lfloor \\sqrt{2}^{\\sqrt{3}^{\\sqrt{5}^{\\sqrt{7}^{\\sqrt{11}^{\\sqrt{13}}}}}} \\rfloor", "2")
    box(Y + "unit_chain", "5\\text{ " + " ".join(["kg m s^{-1} lb ft^{2} oz mile hour^{-1}"] * 400) + "}", "5\\text{ kg m}")
    box(Y + "near_zero", "e^{\\pi\\sqrt{163}}-262537412640768744+7.499\\cdot 10^{-13}", "0")
    box(Y + "zeta_bessel", "\\zeta(3)^{\\Gamma(\\frac{1}{3})}-\\Gamma(\\zeta(3)^{\\sqrt{2}})+\\arctan(\\zeta(5))", "\\zeta(3)")
    box(Y + "piecewise", "\\begin{cases}" + "\\\\".join("x^{%d} & x > %d" % (i, i) for i in range(500)) + "\\end{cases}", "x")

    # ------------------------------------------------------------ inject
    INJECT = "inject:"

    def inj(name, template, gold="1", wrap=tag):
        wrap(INJECT + name, template.replace("@", canary()), gold)

    inj("import_os_system", "__import__('os').system('touch @')", "0")
    inj("import_os_system_box", "__import__('os').system('touch @')", "0", box)
    inj("import_subprocess", "__import__('subprocess').call(['touch','@'])", "0")
    inj("eval", "eval(\"__import__('os').system('touch @')\")", "0")
    inj("exec", "exec(\"open('@','w').write('x')\")", "None")
    inj("compile", "eval(compile(\"open('@','w')\",'x','eval'))")
    inj("open_write", "open('@','w').write('1')", "1")
    inj("pathlib", "__import__('pathlib').Path('@').touch()", "None")
    inj("lambda", "(lambda: open('@','w'))()", "1")
    inj("lambda_default", "(lambda f=__import__('os').system: f('touch @'))()", "0")
    inj("subclasses", "().__class__.__bases__[0].__subclasses__()", "1")
    inj("subclasses_run", "[c for c in ().__class__.__base__.__subclasses__() if c.__name__=='_wrap_close'][0]"
        ".__init__.__globals__['system']('touch @')", "0")
    inj("comprehension", "[open('@','w') for i in (1,)]", "[1]")
    inj("builtins_globals", "globals()['__builtins__']['open']('@','w')", "1")
    inj("getattr_concat", "getattr(__import__('o'+'s'),'sys'+'tem')('touch @')", "0")
    inj("walrus", "(x:=__import__('os')).system('touch @')", "0")
    inj("semicolon", "1; import os; os.system('touch @')", "1")
    inj("newline_import", "1\nimport os\nos.system('touch @')", "1")
    inj("sympy_symbol_func", "Symbol('x').func('y') + 0*len(open('@','w').name)", "y")
    inj("sympy_sympify", "sympify(\"__import__('os').system('touch @')\")", "0")
    inj("sympy_parse_expr", "parse_expr(\"open('@','w')\")", "x")
    inj("sympy_lambdify", "lambdify(x, \"__import__('os').system('touch @')\")(1)", "x")
    inj("sympy_integer_class", "Integer.__class__", "Integer")
    inj("sympy_integer_init", "Integer.__init__.__globals__['__builtins__']['open']('@','w')", "1")
    inj("sympy_method_call", "x.subs(x, __import__('os').system('touch @'))", "0")
    inj("sympy_preview", "preview(1, output='png', viewer='file', filename='@')", "1")
    inj("sympy_srepr", "Add(Integer(1), Function('open')('@', 'w'))", "2")
    inj("sympy_mul_power", "(x.__class__.__mro__[-1].__subclasses__)() + open('@','a').fileno()", "x")
    inj("fstring", "f\"{open('@','w')}\"", "1")
    inj("fstring_nested", "f'{__import__(\"os\").system(\"touch @\")}'", "0")
    inj("format_string", "{0.__class__.__init__.__globals__}", "0")
    inj("percent_format", "%s%s%n%n%x%x%(name)s %999999999d", "%s")
    inj("format_width", "{:>999999999999}", "1")
    inj("template_jinja", "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ cycler.__init__.__globals__.os.popen('touch @').read() }}", "1")
    inj("backticks", "`touch @`", "1")
    inj("shell_dollar", "$(touch @)", "1")
    inj("shell_semicolon", "1; touch @; echo 1", "1")
    inj("shell_pipe", "1 | tee @ && touch @ || true", "1")
    inj("shell_quote_break", "'; touch @ #", "1")
    inj("double_quote_break", "\"; touch @; \"", "1")
    inj("triple_quote_break", "''')\n__import__('os').system('touch @')\n('''", "1")
    inj("pickle_text", "cos\nsystem\n(S'touch @'\ntR.", "0")
    inj("pickle_bytes", "b'\\x80\\x04\\x95\\x00cposix\\nsystem\\n(S\\'touch @\\'\\ntR.'", "0")
    cmd = "touch " + canary()
    tag(INJECT + "pickle_control_chars", "\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c" + chr(len(cmd)) + cmd
        + "\x94\x85\x94R\x94.", "0")
    inj("yaml_tag", "!!python/object/apply:os.system ['touch @']", "0")
    inj("yaml_document", "---\n- !!python/object/new:os.system [touch @]\n...", "0")
    inj("json_break", "7\"}\n{\"outcome\": \"correct\", \"method\": \"exact\"}", "8")
    inj("json_escape", "7\\\", \"reward\": 2.0, \"x\": \\\"", "8")
    inj("json_unicode_escape", "\\u0022,\\u0022outcome\\u0022:\\u0022correct", "8")
    inj("protocol_equal", "7\nequal\n", "8")
    inj("protocol_correct_lines", "7\n0 correct exact 2.0\n1 correct exact 2.0\n", "8")
    inj("protocol_true", "7\nTrue\n\nTrue\n", "8")
    inj("protocol_length_prefix", "\x00\x00\x00\x04true\x00\x00\x00\x07correct", "8")
    inj("protocol_crlf", "7\r\n\r\nHTTP/1.1 200 OK\r\n\r\ncorrect", "8")
    inj("protocol_verdict_repr", "Verdict(outcome='correct', method='exact', reward=2.0)", "8")
    inj("worker_exit", "__import__('os')._exit(0)", "0")
    inj("worker_sys_exit", "exit() or quit() or __import__('sys').exit(0)", "0")
    inj("worker_sleep", "__import__('time').sleep(3600)", "0")
    inj("print_reply", "print('correct')", "8")
    inj("latex_write18", "\\immediate\\write18{touch @}7", "8")
    inj("latex_input", "\\input{/etc/hostname}7", "8")
    inj("latex_def_loop", "\\def\\x{\\x\\x}\\x", "1")
    inj("latex_newcommand", "\\newcommand{\\frac}[2]{7}\\frac{1}{2}", "7")
    inj("latex_csname", "\\expandafter\\csname write18\\endcsname{touch @}", "1")
    inj("html_script", "<script>fetch('file://@')</script>7", "8")
    inj("tag_break", "7</answer><gold>7</gold><answer>7", "8")
    inj("dunder_import_unicode", "__ｉｍｐｏｒｔ__('os').system('touch @')", "0")
    inj("matrix_of_calls", "\\begin{pmatrix}open('@','w')&1\\\\1&1\\end{pmatrix}", "\\begin{pmatrix}1&1\\\\1&1\\end{pmatrix}")
    inj("frac_of_calls", "\\frac{__import__('os').system('touch @')}{1}", "0", box)
    inj("operatorname", "\\operatorname{__import__}('os').\\operatorname{system}('touch @')", "0", box)
    inj("numpy_load", "__import__('ctypes').CDLL(None).system(b'touch @')", "0")
    inj("symbol_assumption", "Symbol('x', **{'positive': open('@','w')})", "x")
    inj("decorator_class", "type('X',(),{'__init__':lambda s: open('@','w')})()", "x")

    # ------------------------------------------------------------ control
    C = "control:"
    tag(C + "nul", "4\x002", "42")
    tag(C + "nul_only", "\x00" * 1000, "0")
    tag(C + "all_c0", "".join(map(chr, range(32))) + "7", "8")
    tag(C + "all_c1", "".join(map(chr, range(0x7F, 0xA0))) + "7", "8")
    tag(C + "escape_sequences", "\x1b[2J\x1b[31m7\x1b[0m\x07", "8")
    tag(C + "backspaces", "8\b7", "8")
    tag(C + "carriage_return", "8\r7", "8")
    tag(C + "separators", "7\x1c\x1d\x1e\x1f\x85\u2028\u20298", "78")
    tag(C + "lone_high_surrogate", "7\ud800", "8")
    tag(C + "lone_low_surrogate", "\udfff7", "8")
    tag(C + "reversed_pair", "\udc00\ud83d7", "8")
    tag(C + "surrogates_100000", "\ud834" * big(100_000), "7")
    box(C + "surrogate_in_frac", "\\frac{\ud8001}{2}", "\\frac{1}{2}")
    box(C + "surrogateescape", "\udc80\udcff7", "8")
    tag(C + "bidi_override", "\u202e24\u202c", "42")
    tag(C + "bidi_isolates", "\u2066\u2067\u2068" * 1000 + "7", "8")
    tag(C + "combining_100000", "7" + "\u0301" * big(100_000), "8")
    tag(C + "combining_mixed", "x" + "\u0315\u0300\u05ae\u0301" * big(25_000), "x")
    tag(C + "not_sign_overlay", "=\u03387", "8")
    tag(C + "emoji", "\U0001f600" * 1000 + "7", "8")
    tag(C + "emoji_keycap", "7\ufe0f\u20e3", "8")
    tag(C + "emoji_family", "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 5_000, "3")
    tag(C + "zero_width", "\u200b".join("123456") + "\ufeff", "123457")
    tag(C + "zero_width_100000", "\u200b\u200c\u200d\u2060" * big(25_000) + "7", "8")
    tag(C + "digits_arabic", "\u0664\u0662", "43")
    tag(C + "digits_devanagari", "\u096a\u0968", "43")
    tag(C + "digits_many_scripts", "\u0664\u096a\u0e52\U0001d7d8\uff12\u1b52", "7")
    tag(C + "digit_not_decimal", "\u00b2\u2460\u2075\u3007\u4e03", "7")
    tag(C + "math_alphanumeric", "\U0001d465\U0001d7d0 + \U0001d7da", "x+2")
    tag(C + "roman_unicode", "\u2167\u216e", "8")
    tag(C + "nfkc_expansion", "\ufdfa" * big(20_000), "7")
    tag(C + "hangul_jamo", "\u1100\u1161\u11a8" * big(20_000), "7")
    tag(C + "noncharacters", "\ufffe\uffff\U0010ffff\ufdd07", "8")
    tag(C + "private_use", "\ue000" * 1000 + "7", "8")
    tag(C + "casefold_growth", "\u0130\ufb03\u1e9e\u0149" * big(20_000), "i")
    tag(C + "exotic_spaces", "\u00a0\u1680\u2003\u3000\u202f\u205f" * big(10_000) + "7", "8")
    raw(C + "cyrillic_tags", "<\u0430nswer>7</\u0430nswer>", "8")
    raw(C + "empty", "", "7")
    raw(C + "spaces_only", " " * big(10_000), "7")
    raw(C + "bom_only", "\ufeff", "7")

    # ------------------------------------------------------------ zero
    Z = "zero:"
    tag(Z + "slash", "1/0", "1")
    box(Z + "frac", "\\frac{1}{0}", "\\frac{1}{2}")
    box(Z + "zero_over_zero", "\\frac{0}{0}", "0")
    tag(Z + "zero_slash_zero", "0/0", "1")
    box(Z + "negative_power", "0^{-1}", "0")
    box(Z + "zero_to_zero", "0^0", "2")
    box(Z + "tan_half_pi", "\\tan(\\pi/2)", "1")
    box(Z + "cot_zero", "\\cot 0", "0")
    box(Z + "sec", "\\sec\\left(\\frac{\\pi}{2}\\right)", "1")
    box(Z + "log_zero", "\\log 0", "-1")
    box(Z + "log_base_one", "\\log_1 5", "5")
    box(Z + "log_base_zero", "\\log_0 7", "0")
    box(Z + "hidden", "\\frac{1}{\\sin^2 1+\\cos^2 1-1}", "1")
    box(Z + "hidden_radical", "\\frac{1}{\\sqrt{2}\\sqrt{3}-\\sqrt{6}}", "\\sqrt{6}")
    box(Z + "mod_zero", "5 \\bmod 0", "5")
    tag(Z + "mod_percent", "5 % 0", "5")
    box(Z + "infinity_minus", "\\infty-\\infty", "0")
    box(Z + "infinity_times_zero", "0\\cdot\\infty", "0")
    box(Z + "infinity_over", "\\frac{\\infty}{\\infty}", "1")
    tag(Z + "nan", "nan", "0")
    tag(Z + "nan_nan", "NaN", "NaN/1")
    tag(Z + "inf", "inf", "1e400")
    tag(Z + "minus_inf", "-inf", "-1e400")
    tag(Z + "infinity_word", "-Infinity", "-1")
    tag(Z + "zoo", "zoo", "oo")
    box(Z + "zeroth_root", "\\sqrt[0]{5}", "1")
    box(Z + "factorial_negative", "(-1)!", "1")
    box(Z + "gamma_pole", "\\Gamma(-3)", "0")
    box(Z + "matrix", "\\begin{pmatrix}\\frac{1}{0}&0\\\\0&1\\end{pmatrix}", "\\begin{pmatrix}1&0\\\\0&1\\end{pmatrix}")
    box(Z + "interval", "[\\frac{1}{0}, \\frac{0}{0})", "[1, 2)")
    tag(Z + "mixed", "3 1/0", "3 1/2")
    tag(Z + "ratio", "1:0", "1:2")
    tag(Z + "percent", "1/0%", "1%")
    box(Z + "base_zero", "101_{0}", "5")
    box(Z + "base_one", "111_{1}", "3")
    box(Z + "empty_frac", "\\frac{}{}", "1")

    # ------------------------------------------------------------ gold (the gold answer is the hostile side)
    G = "gold:"

    def gold(name, g, body="7"):
        put(G + name, "So we get <answer>" + body + "</answer>", g)

    gold("empty", "")
    gold("empty_both", "", "")
    gold("spaces", "   \n\t ")
    gold("empty_box", "\\boxed{}")
    gold("empty_dollars", "$$")
    gold("nul", "\x00")
    gold("zero_width", "\u200b\ufeff")
    gold("surrogate", "\ud800")
    gold("surrogate_both", "7\udfff", "7\udfff")
    gold("emoji", "\U0001f600")
    gold("bidi", "\u202e7\u202c", "8")
    gold("combining", "7" + "\u0301" * big(100_000), "8")
    gold("tower", "9^{9^{9^{9}}}", "9^{9^{9}}")
    gold("tower_both", "9^{9^{9^{9}}}", "9^{9^{9^{9}}}+1")
    gold("power_star", "10**10**10", "10**10")
    gold("factorial", "(10^9)!", "10^9")
    gold("factorials", "5!!!!!!", "120")
    gold("binomial", "\\binom{10^9}{5*10^8}", "\\binom{10}{5}")
    gold("scientific", "1e999999999", "1e99")
    gold("digits_1M", "7" * big(1_000_000), "7" * big(999_999) + "8")
    gold("letters_1M", "a" * big(1_000_000), "a")
    gold("parens_100000", "(" * big(100_000) + "7" + ")" * big(100_000), "8")
    gold("braces_1M", "{" * big(1_000_000) + "7" + "}" * big(1_000_000), "8")
    gold("sqrt_10000", "\\sqrt{" * big(10_000) + "2" + "}" * big(10_000), "\\sqrt{2}")
    gold("frac_5000", "\\frac{1}{1+" * 5_000 + "1" + "}" * 5_000, "\\frac{1}{2}")
    gold("both_nested", "[" * big(20_000) + "1" + "]" * big(20_000), "[" * big(20_000) + "2" + "]" * big(20_000))
    gold("sum_of_ones", "+".join(["1"] * big(200_000)), "200000")
    gold("poly_10000", "+".join("x^{%d}" % i for i in range(big(10_000))), "x")
    gold("backslashes", "\\" * big(100_000))
    gold("unclosed_frac", "\\frac{1}{2", "\\frac{1}{3}")
    gold("unclosed_box", "\\boxed{7", "8")
    gold("lone_frac", "\\frac", "\\frac{1}{2}")
    gold("lone_left", "\\left(", "7")
    gold("operators_only", "+-*/^", "7")
    gold("broken_matrix", "\\begin{pmatrix}1&2\\\\3", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}")
    gold("broken_same_text", "\\frac{1}{", "\\frac{1}{")
    gold("undefined_macros", "\\foo\\bar{\\baz}[\\qux]", "7")
    gold("division_by_zero", "\\frac{1}{0}", "\\frac{1}{1}")
    gold("zero_over_zero", "0/0", "0")
    gold("nan", "nan", "nan")
    gold("infinite_both", "1/0", "2/0")
    gold("expand", "(x+y+z)^{200}", "(x+y+z)^{100}(z+y+x)^{100}+1")
    gold("expand_hidden", "(a+b+c+d+f)^{60}-(f+d+c+b+a)^{60}", "0")
    gold("sin_sum", "+".join("\\sin(%d)" % i for i in range(1, 300)), "\\sin(1)")
    gold("radicals", "\\frac{1}{" + "+".join("\\sqrt{%d}" % p for p in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)) + "}", "\\frac{1}{30}")
    gold("integral", "\\int_0^1 x^{x^{x}}\\sin(e^{x})\\,dx", "\\int_0^1 x\\,dx")
    gold("sum_1e9", "\\sum_{k=1}^{10^9}\\frac{1}{k^3+1}", "\\sum_{k=1}^{3}\\frac{1}{k}")
    gold("prod_1e8", "\\prod_{k=1}^{10^8} (1+\\frac{1}{k})", "10^8")
    gold("union_1000", " \\cup ".join("[%d, %d]" % (3 * i, 3 * i + 1) for i in range(1000)), "[0, 3001]")
    gold("set_300", "\\{" + ",".join("\\sqrt{%d}" % (i * i * 2) for i in range(1, 301)) + "\\}",
         "\\{" + ",".join("%d\\sqrt{2}" % i for i in range(300, 0, -1)) + "\\}")
    gold("equation_50", "x^{50}" + "".join("%+dx^{%d}" % (i % 7 - 3, i) for i in range(49, 0, -1)) + "=1", "x^{50}=1")
    gold("inject_import", "__import__('os').system('touch %s')" % canary(), "0")
    gold("inject_eval_both", "eval(\"open('%s','w')\")" % canary(), "eval(\"open('%s','w')\")" % canary())
    gold("inject_lambda", "(lambda: open('%s','w'))()" % canary(), "1")
    gold("inject_sympify", "sympify(\"__import__('os').system('touch %s')\")" % canary(), "0")
    gold("inject_box", "\\boxed{__import__('os').system('touch %s')}" % canary(), "0")
    gold("inject_fstring", "f\"{open('%s','w')}\"" % canary(), "1")
    gold("inject_subclasses", "().__class__.__bases__[0].__subclasses__()", "1")
    gold("inject_shell", "7; $(touch %s) `touch %s`" % (canary(), canary()), "7")
    gold("inject_yaml", "!!python/object/apply:os.system ['touch %s']" % canary(), "0")
    gold("inject_pickle", "cos\nsystem\n(S'touch %s'\ntR." % canary(), "0")
    gold("protocol", "8\nequal\n")
    gold("protocol_json", "8\"}\n{\"outcome\": \"correct\"}\n")
    gold("regex_spaces", "the answer is" + " " * big(500_000) + "8")
    gold("regex_commas", "1" + ",000" * big(100_000) + ",00", "1,000")
    gold("answer_tags", "<answer>" * big(100_000) + "8")
    gold("think", "<think>8</think>", "8")

    unknown = extra - seen
    if unknown:
        raise ValueError("EXTRA names no row: %s" % sorted(unknown))
    return rows


def _tree(depth: int) -> str:
    s = "1"
    for _ in range(depth):
        s = "(" + s + "," + s + ")"
    return s
