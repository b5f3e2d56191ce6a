"""31 completions that would run something in a page that takes text for anything but text."""

from tests.support.browser_rows import ATTACKS

HOSTILE_COMPLETIONS = [
    *ATTACKS,
    "<script>alert(1)</script>",
    "</div></dialog></body></html><script>alert(1)</script>",
    "<svg><script>alert(1)</script></svg>",
    "<svg/onload=alert(1)>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<a href=javascript:alert(1) autofocus onfocus=alert(1)>x</a>",
    "<b onmouseover=alert(1) style='position:fixed;inset:0'>x</b>",
    "<details open ontoggle=alert(1)><summary>x</summary></details>",
    "<video><source onerror=alert(1)></video>",
    "<math><mi xlink:href='javascript:alert(1)'>x</mi></math>",
    "<meta http-equiv=refresh content='0;url=https://example.invalid'>",
    "<base href=https://example.invalid/><link rel=stylesheet href=x.css>",
    "<style>@import 'https://example.invalid/x.css'; body { display: none }</style>",
    "<form action=https://example.invalid><button>x</button></form>",
    "<img src=https://example.invalid/x.png srcset='https://example.invalid/y.png 2x'>",
    "&lt;script&gt;alert(1)&lt;/script&gt; &#60;img src=x onerror=alert(1)&#62;",
    "${alert(1)} `${alert(1)}` {{constructor.constructor('alert(1)')()}} %{customdata} <%= 1 %>",
    "data:text/html,<script>alert(1)</script> javascript:alert(1)//",
    '"}]},"problems":{"__proto__":{"polluted":1}},"x":[{"a":"',
    "\\u003cscript\\u003ealert(1)\\u003c/script\\u003e \x3cscript\x3ealert(1)\x3c/script\x3e",
    "<answer><img src=x onerror=alert(1)></answer> \\boxed{<svg onload=alert(1)>}",
]
assert len(HOSTILE_COMPLETIONS) == 31
