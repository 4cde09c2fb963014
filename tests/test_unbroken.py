"""What no line breaks, in pages."""

import pytest

from unbroken import unbroken

KEPT = [
    '<pre><span class="s1">"19 % of 1e-12"</span></pre>',
    "<code>1e-12</code> and <code>7 % 3</code>",
    r'<span class="math notranslate">\(10^{-3} = 1e-3, 5 %\)</span>',
    r'<div class="math"><span class="eqno">(1)</span>\[5 % 1e-3\]</div>',
    '<img alt="19 % > 1e-12" src="one.svg"/>',
    "<!-- 19 % -->",
    "<p>% of windows, a % sign, one-e-1, case-3, 1e5, x1e-3</p>",
    "<p>nine</p> % <p>a\n%</p>",
]
MENDED = [
    ("<p>19 % fall</p>", "<p>19\N{NO-BREAK SPACE}% fall</p>"),
    ("<p><span>8 (0–18)</span> % and</p>", "<p><span>8 (0–18)</span>\N{NO-BREAK SPACE}% and</p>"),
    (
        "(2.08e-14 to -6.05e-12; 10 seeds)",
        '(<span class="number">2.08e-14</span> to <span class="number">-6.05e-12</span>; 10 seeds)',
    ),
    ("<code>f(1)</code> 1 % <b>2</b> %", "<code>f(1)</code> 1\N{NO-BREAK SPACE}% <b>2</b>\N{NO-BREAK SPACE}%"),
]


@pytest.mark.parametrize("html", KEPT)
def test_code_formulas_and_words_stay_as_they_are(html):
    assert unbroken(html) == html


@pytest.mark.parametrize(("html", "mended"), MENDED)
def test_a_number_holds_together(html, mended):
    assert unbroken(html) == mended
