"""The laboratory: its JavaScript against PyTorch, in a browser and from the disk; its files, without one."""

import copy
import math
import re
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import lab_model
import laboratory
import look
from chapters import ROOT
from lstm_lib.book.plots import COLOUR
from lstm_lib.trace import trace

LAB = ROOT / "book" / "_static" / "lab"
SCRIPTS = [LAB / f"{name}.js" for name in laboratory.SCRIPTS]
PAGE = (ROOT / "book" / "laboratory.md").read_text(encoding="utf-8")
BOXES = re.findall(r"^```\{laboratory\} (\w+)$", PAGE, re.MULTILINE)
UNITS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
every_unit = pytest.mark.parametrize("unit", UNITS)

# Files


def test_every_script_is_loaded_and_weighs_little():
    assert {path.name for path in LAB.glob("*.js")} == {path.name for path in SCRIPTS}
    assert sum(path.stat().st_size for path in SCRIPTS if path != lab_model.PATH) < 85_000
    assert lab_model.PATH.stat().st_size < 150_000


def test_scripts_and_style_ask_nothing_of_the_network():
    for path in [*SCRIPTS, LAB / "lab.css"]:
        text = path.read_text(encoding="utf-8")
        text = text.replace('"http://www.w3.org/2000/svg"', "")  # a name, not an address
        assert not re.search(r"https?:|fetch\(|XMLHttpRequest|WebSocket|import\(|url\([^#]", text), path.name


def test_quantities_have_the_colours_of_the_figures():
    style = (LAB / "lab.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--lab-(\w+): (#\w+);", block)) for block in style.split("}")[:2])
    assert len(light) > 8
    assert light == {name: COLOUR[name] for name in light}
    brighter = {
        name: [min(255, round(1.35 * int(c[k : k + 2], 16))) for k in (1, 3, 5)] for name, c in light.items()
    }
    assert dark == {name: "#{:02x}{:02x}{:02x}".format(*channels) for name, channels in brighter.items()}


THEMES = {  # of the pages: text, muted text, background, surface, border
    "light": ("#222832", "#48566b", "#ffffff", "#f3f4f5", "#c9c9c9"),
    "dark": ("#ced6dd", "#9ca4af", "#121212", "#29313d", "#48566b"),
}


@pytest.mark.parametrize("theme", THEMES)
def test_coloured_text_can_be_read(theme):
    """WCAG's contrast of the text with each quantity at its fullest behind it."""

    def luminance(colour):
        linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in colour]
        return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    def rgb(colour):
        return [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]

    style = (LAB / "lab.css").read_text(encoding="utf-8")
    which = list(THEMES).index(theme)
    colours = dict(re.findall(r"--lab-(\w+): (#\w+);", style.split("}")[which]))
    most = float(re.findall(r"--lab-most: ([.\d]+);", style)[which])
    text, _, background, *_ = map(rgb, THEMES[theme])
    for name in ("input", "forget", "candidate", "output", "cell", "hidden", "x"):
        behind = [most * a + (1 - most) * b for a, b in zip(rgb(colours[name]), background, strict=True)]
        low, high = sorted((luminance(text), luminance(behind)))
        assert (high + 0.05) / (low + 0.05) > 4.5, name


def test_only_a_page_with_a_laboratory_loads_it(tmp_path):
    conf = f"import sys; sys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\n"
    (tmp_path / "conf.py").write_text(conf + "extensions = ['myst_nb', 'laboratory']\nnb_execution_mode = 'off'\n")
    (tmp_path / "index.md").write_text("# Without\n\n```{toctree}\nwith\n```\n")
    (tmp_path / "with.md").write_text("# With\n\n```{laboratory} gates\nIt needs *JavaScript*.\n```\n")
    subprocess.run([sys.executable, "-P", "-m", "sphinx", "-q", ".", "out"], cwd=tmp_path, check=True)
    pages = {name: (tmp_path / "out" / f"{name}.html").read_text(encoding="utf-8") for name in ("index", "with")}
    assert "lab/" not in pages["index"]
    assert re.findall(r'<script defer="defer" src="_static/lab/(\w+)\.js', pages["with"]) == laboratory.SCRIPTS
    assert "_static/lab/lab.css" in pages["with"]
    box = re.search(
        r'<div class="lab" id="lab-gates"><noscript>\s*<p>(.*?)</p>\s*</noscript></div>', pages["with"]
    )
    assert box[1] == "It needs <em>JavaScript</em>."


# In a browser


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs pip install -r requirements-look.txt")
    if (path := look.browser()) is None:
        pytest.skip("needs Chromium or Chrome, or CHROMIUM set to the path of one")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=look.flags())


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A page with the boxes of the book's and its scripts, and nothing else, on the disk."""
    path = tmp_path_factory.mktemp("lab") / "page.html"
    boxes = "".join(f'<div class="lab" id="lab-{name}"></div>' for name in BOXES)
    scripts = "".join(f'<script defer src="{script.as_uri()}"></script>' for script in SCRIPTS)
    style = f'<link rel="stylesheet" href="{(LAB / "lab.css").as_uri()}">'
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Lab</title>{style}{scripts}'
        f'<body><main class="bd-article">{boxes}</main></body></html>',
        encoding="utf-8",
    )
    return path.as_uri()


@pytest.fixture
def open_page(browser, file):
    """Opens the page at a place in it; what it asks of the network, or says to the console, fails the test."""
    said, context = [], browser.new_context(viewport={"width": 1000, "height": 900})

    def opened(place=""):
        page = context.new_page()
        page.on("request", lambda request: request.url.startswith("file:") or said.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(file + place)
        return page

    yield opened
    context.close()
    assert said == []


@pytest.fixture
def page(open_page):
    return open_page()


class Net(nn.Module):
    """A layer and a read-out of its hidden state at every step, in float64, as the script has them."""

    def __init__(self, unit, input_size, hidden_size, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.unit, self.layer = unit, UNITS[unit](input_size, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, 1)
        self.double()

    def forward(self, x):
        return self.head(self.layer(x)[0]).squeeze(-1)

    def described(self):
        """For the script: unit, sizes, and the parameters under its names."""
        return {
            "unit": self.unit,
            "inputSize": self.layer.input_size,
            "hiddenSize": self.layer.hidden_size,
            "p": {script: value.flatten().tolist() for script, value in self.named()},
        }

    def named(self):
        for name, value in self.named_parameters():
            yield re.sub(r"layer\.|head\.|_l0", "", name), value


NET = """const made = d => ({ ...d, p: Object.fromEntries(
  Object.entries(d.p).map(([name, values]) => [name, Float64Array.from(values)])) });
const plain = v => ArrayBuffer.isView(v) ? [...v] : v;
"""


def script(page, body, **values):
    """What a function body makes of values, in the page; `made` gives it a network from its description."""
    return page.evaluate(f"values => {{ {NET} {body} }}", values)


def close(found, wanted, atol):
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), wanted.detach(), rtol=0, atol=atol)


@every_unit
def test_states_are_pytorchs(page, unit):
    net = Net(unit, input_size=3, hidden_size=7)
    x = 2 * torch.randn(40, 3, dtype=torch.float64)
    steps = script(
        page,
        """return lstm.forward(made(values.net), values.x).map(s =>
             Object.fromEntries("hcifgorzn".split("").filter(k => s[k]).map(k => [k, plain(s[k])])));""",
        net=net.described(),
        x=x.tolist(),
    )
    out, _ = net.layer(x[None])
    close([s["h"] for s in steps], out[0], 1e-6)
    before = torch.cat([torch.zeros(1, 7, dtype=torch.float64), out[0][:-1]])
    layer = net.layer
    a = x @ layer.weight_ih_l0.T + layer.bias_ih_l0, before @ layer.weight_hh_l0.T + layer.bias_hh_l0
    if unit == "LSTM":
        for gate, value in zip("ifgo", sum(a).chunk(4, dim=1), strict=True):
            close([s[gate] for s in steps], torch.tanh(value) if gate == "g" else torch.sigmoid(value), 1e-6)
        cells = [layer(x[None, : t + 1])[1][1][0, 0] for t in range(len(x))]
        close([s["c"] for s in steps], torch.stack(cells), 1e-6)
    if unit == "GRU":
        for gate, value in zip("rz", sum(a).chunk(3, dim=1), strict=False):
            close([s[gate] for s in steps], torch.sigmoid(value), 1e-6)


@every_unit
def test_gradients_are_autograds(page, unit):
    net = Net(unit, input_size=2, hidden_size=6, seed=1)
    x = torch.randn(3, 15, 2, dtype=torch.float64, requires_grad=True)
    y = torch.randn(3, 15, dtype=torch.float64)
    scored = torch.rand(3, 15) < 0.4
    scored[:, -1] = True
    loss = mse_loss(net(x)[scored], y[scored])
    loss.backward()
    found = script(
        page,
        """const net = made(values.net), grads = lstm.like(net);
           const loss = values.x.reduce(
             (sum, xs, n) => sum + lstm.learn(net, xs, values.y[n], values.count, grads), 0);
           for (const name of Object.keys(grads)) grads[name] = plain(grads[name]);
           return { loss, grads };""",
        net=net.described(),
        x=x.tolist(),
        y=[[v if s else None for v, s in zip(*row, strict=True)] for row in zip(y.tolist(), scored, strict=True)],
        count=int(scored.sum()),
    )
    assert math.isclose(found["loss"], loss.item(), abs_tol=1e-6)
    for name, value in net.named():
        close(found["grads"][name], value.grad.flatten(), 1e-5)


@every_unit
def test_gradients_of_inputs_are_autograds(page, unit):
    net = Net(unit, input_size=2, hidden_size=6, seed=2)
    x = torch.randn(1, 12, 2, dtype=torch.float64, requires_grad=True)
    found = script(
        page,
        """const net = made(values.net), steps = lstm.forward(net, values.x), given = [];
           given[steps.length - 1] = new Float64Array(net.hiddenSize).fill(1);
           const x = lstm.backward(net, steps, given).map(plain);
           return { x, lags: plain(lstm.gradientByLag(net, steps)) };""",
        net=net.described(),
        x=x[0].tolist(),
    )
    jacobian = torch.autograd.functional.jacobian(lambda x: net.layer(x)[0][0, -1], x)[:, 0]  # (H, T, I)
    close(found["x"], jacobian.sum(0), 1e-5)
    close(found["lags"], jacobian.square().sum((0, 2)).sqrt().flip(0), 1e-5)


@every_unit
def test_a_hundred_steps_of_adam_lead_where_pytorchs_lead(page, unit):
    net = Net(unit, input_size=2, hidden_size=8, seed=3)
    x = torch.rand(100, 8, 10, 2, dtype=torch.float64)
    y = x[..., 0].cumsum(-1) * 0.3
    described, curve = net.described(), []
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for batch, answers in zip(x, y, strict=True):
        loss = mse_loss(net(batch), answers)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimizer.step()
        curve.append(loss.item())
    found = script(
        page,
        """const net = made(values.net), adam = new lstm.Adam(net, 0.02);
           return values.x.map((batch, s) => {
             const grads = lstm.like(net);
             const loss = batch.reduce((sum, xs, n) => sum + lstm.learn(net, xs, values.y[s][n], 80, grads), 0);
             lstm.clip(grads, 0.5);
             adam.step(grads);
             return loss;
           });""",
        net=described,
        x=x.tolist(),
        y=y.tolist(),
    )
    assert curve[-1] < curve[0] / 10
    torch.testing.assert_close(torch.tensor(found), torch.tensor(curve), rtol=0.01, atol=0)


def test_random_numbers_follow_the_seed_and_their_distribution(page):
    draws = "const random = lstm.uniform(values.seed); return Array.from({ length: 20000 }, () => values.normal ? "
    draws += "lstm.normal(random) : random());"
    even = torch.tensor(script(page, draws, seed=1, normal=False), dtype=torch.float64)
    assert even.tolist() == script(page, draws, seed=1, normal=False)
    assert even.tolist() != script(page, draws, seed=2, normal=False)
    assert even.min() >= 0
    assert even.max() < 1
    assert abs(even.mean() - 0.5) < 0.01
    bell = torch.tensor(script(page, draws, seed=1, normal=True))
    assert abs(bell.mean()) < 0.03
    assert abs(bell.std() - 1) < 0.03


# The gate laboratory


def by_pytorch(w, x):
    """h, c (T,) of a torch.nn.LSTM of one unit with the laboratory's twelve numbers."""
    layer = nn.LSTM(1, 1).double().requires_grad_(False)
    w = torch.tensor(w, dtype=torch.float64).view(4, 3)
    for value, column in zip(layer.parameters(), [w[:, :1], w[:, 1:2], w[:, 2], 0 * w[:, 2]], strict=True):
        value.copy_(column)
    x = torch.tensor(x, dtype=torch.float64).view(-1, 1)
    c = [layer(x[: t + 1])[1][1].item() for t in range(len(x))]
    return layer(x)[0].flatten(), torch.tensor(c, dtype=torch.float64)


@pytest.fixture
def presets(page):
    """h and c of each preset: by PyTorch, and equal to what the page shows when its button is pressed."""
    found = {}
    for name, preset in page.evaluate("laboratory.gates.PRESETS").items():
        page.get_by_role("button", name=name, exact=True).click()
        h, c = found[name] = by_pytorch(preset["w"], preset["x"])
        close(page.evaluate("laboratory.gates.steps.map(s => s.c[0])"), c, 1e-9)
        close(page.evaluate("laboratory.gates.steps.map(s => s.h[0])"), h, 1e-9)
        assert page.locator("#lab-gates .lab-sentence").inner_text() == f"{preset['says']} {preset['here']}"
    return found


def test_presets_do_what_they_say(presets, page):
    x = {name: torch.tensor(preset["x"]) for name, preset in page.evaluate("laboratory.gates.PRESETS").items()}
    h, c = ({name: both[k] for name, both in presets.items()} for k in (0, 1))

    assert x["keep"].abs().sort().values[-2] >= 0.3  # small inputs that must leave no trace
    assert c["keep"][:3].abs().max() < 0.01
    assert (c["keep"][3:] / c["keep"][3] - 1).abs().max() < 0.01

    assert 5.4 < math.log(2) / math.log1p(math.exp(-2)) < 5.5
    kept = c["forget"][3:] / c["forget"][3]
    assert kept[5] > 0.5 > kept[6]
    assert torch.sigmoid(torch.tensor(20 * 0.75 - 15.0)) == 0.5

    ones = (x["count"] == 1).cumsum(0)
    assert ones[-1] == 8
    assert (c["count"] - 0.995 * ones).abs().max() < 0.02
    assert round((h["count"][ones == 8][0] - h["count"][ones == 4][0]).item(), 4) == 0.0007
    assert h["count"][ones >= 2].min() > 0.95

    wanted, n = [], 0
    for value in x["count again"].tolist():
        n = 0 if value == -1 else n + (value == 1)
        wanted.append(n)
    assert max(wanted) == 3
    assert (c["count again"] - 0.995 * torch.tensor(wanted)).abs().max() < 0.02

    last = 0.0
    for value, state in zip(x["latch"].tolist(), c["latch"].tolist(), strict=True):
        last = value if value else last
        assert abs(state - (last == 1)) < 0.03
    again = [k for k in range(1, 12) if x["latch"][k] == 1 and c["latch"][k - 1] > 0.5]
    assert len(again) == 2
    assert all(0.005 < c["latch"][k] - c["latch"][k - 1] < 0.006 for k in again)

    asked, shown = x["show when asked"] == 1, h["show when asked"]
    assert (c["show when asked"][6:] - 2 * 0.995).abs().max() < 0.02
    assert asked.nonzero().flatten().tolist() == [11, 18]
    assert [round(value, 2) for value in shown[asked].tolist()] == [0.96, 0.96]
    assert shown[~asked].abs().max() < 0.001

    f = 1 / (1 + math.exp(-2))
    assert (round(1 - f, 2), round(f, 2)) == (0.12, 0.88)
    assert abs(c["average"][13] / math.tanh(1) - (1 - f**10)) < 1e-6
    assert (round(c["average"][13].item(), 2), round(math.tanh(1), 2)) == (0.55, 0.76)

    assert abs(c["nothing set"][9] / c["nothing set"][8] - 0.5) < 1e-9


def test_the_experiments_on_the_page_come_out(page):
    """What the text next to the gate laboratory promises."""
    preset = page.evaluate("laboratory.gates.PRESETS")
    w = list(preset["keep"]["w"])
    w[5] = 2
    assert w == preset["forget"]["w"]  # 5½ steps, see above
    w[5] = 0
    _, c = by_pytorch(w, [float(k == 3) for k in range(24)])
    assert (c[4:] / c[3:-1] - 0.5).abs().max() < 1e-3
    w = list(preset["latch"]["w"])
    w[1] = 0
    _, c = by_pytorch(w, preset["latch"]["x"])
    assert c[:12].max() == pytest.approx(3 * 0.995, abs=0.02)


def test_the_equations_hold_the_numbers_of_the_chosen_step(page):
    """Whoever reckons with the printed numbers gets the printed results, but for the last digit."""
    page.get_by_role("button", name="latch", exact=True).click()
    page.get_by_role("group", name="g candidate").get_by_label("weight on x").fill("-1.35")
    h, c = by_pytorch(*page.evaluate("[laboratory.gates.state.w, laboratory.gates.state.x]"))
    for t in (1, 3, 7, 13, 24):
        page.get_by_label("Step", exact=True).fill(str(t))
        shown = [
            text.replace("−", "-").replace("×", "*").replace("σ", "sigmoid")
            for text in page.locator("#lab-gates .lab-filled").all_inner_texts()
        ]
        assert len(shown) == 6
        for text in shown:
            *terms, result = text.removeprefix("= ").split(" = ")
            for term in terms:
                named = {"tanh": math.tanh, "sigmoid": lambda a: 1 / (1 + math.exp(-a))}
                assert eval(term, named) == pytest.approx(float(result), abs=0.006), text
        assert float(shown[4].rpartition("= ")[2]) == pytest.approx(c[t - 1].item(), abs=0.0006)
        assert float(shown[5].rpartition("= ")[2]) == pytest.approx(h[t - 1].item(), abs=0.0006)


def test_keys_move_a_slider_and_the_numbers_follow(page):
    bias = page.get_by_role("group", name="f forget gate").get_by_label("bias")
    bias.focus()
    page.keyboard.press("ArrowLeft")
    assert bias.input_value() == "9.5"
    says = page.locator("#lab-gates [role=status]").element_handle()
    page.wait_for_function("e => e.textContent.startsWith('At step 24: cell state 0.9')", arg=says)
    _, c = by_pytorch(*page.evaluate("[laboratory.gates.state.w, laboratory.gates.state.x]"))
    page.get_by_label("Step", exact=True).focus()
    page.keyboard.press("End")
    assert page.locator("#lab-gates .lab-filled").all_inner_texts()[4].endswith(f" = {c[-1]:.3f}")
    page.get_by_label("x at this step").focus()
    page.keyboard.press("Home")
    assert page.evaluate("laboratory.gates.state.x[23]") == -1
    page.wait_for_function("e => e.textContent.startsWith('Step 24: x −1.00')", arg=says)
    page.get_by_text("All steps as a table").click()
    last = page.locator(".lab-all tbody tr").last.inner_text().split()
    assert last[:2] == ["24", "−1.00"]
    assert last[6] == f"{c[-1]:.2f}"


def test_a_stroke_draws_the_input(page):
    page.get_by_role("button", name="Clear the input").click()
    page.locator(".lab-pen").scroll_into_view_if_needed()
    box = page.locator(".lab-pen").bounding_box()
    page.mouse.move(box["x"] + 35, box["y"] + 24)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 10, box["y"] + 24)
    page.mouse.up()
    page.mouse.move(box["x"] + 60, box["y"] + 100)
    drawn = page.evaluate("laboratory.gates.state.x")
    assert len(drawn) == 24
    assert min(drawn) > 0.9
    page.get_by_role("button", name="Undo").click()
    assert page.evaluate("laboratory.gates.state.x") == [0] * 24
    page.locator(".lab-pen").scroll_into_view_if_needed()
    box = page.locator(".lab-pen").bounding_box()
    page.mouse.click(box["x"] + 60, box["y"] + 40, button="right")
    assert page.evaluate("laboratory.gates.state.x") == [0] * 24
    page.get_by_role("button", name="Undo").click()
    assert page.evaluate("laboratory.gates.state.x[3]") == 1
    assert page.get_by_role("button", name="Undo").is_disabled()
    page.locator(".lab-trace").click(position={"x": box["width"] / 2, "y": 30})
    assert page.evaluate("laboratory.gates.state.t") in (12, 13)


def test_a_preset_leaves_the_input_when_told(page):
    x = page.evaluate("laboratory.gates.state.x")
    page.get_by_label("Presets leave my input as it is").check()
    page.get_by_role("button", name="latch", exact=True).click()
    preset = page.evaluate("laboratory.gates.PRESETS.latch")
    assert page.evaluate("laboratory.gates.state.x") == x
    assert page.evaluate("laboratory.gates.state.w") == preset["w"]
    assert (
        page.locator(".lab-sentence").inner_text() == preset["says"]
    )  # and nothing on an input that is not there
    page.get_by_role("group", name="o output gate").get_by_label("bias").fill("3")
    assert page.locator(".lab-sentence").inner_text() == 'A cell of your own, begun from "latch".'


def test_a_finger_draws_too(browser, file):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    page.goto(file)
    pen = page.locator(".lab-pen")
    pen.scroll_into_view_if_needed()
    box = pen.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] - 12, box["y"] + 24 + 72 * 0.75)
    assert page.evaluate("[laboratory.gates.state.t, laboratory.gates.state.x[23]]") == [24, pytest.approx(-0.5)]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_the_link_carries_the_state(page, open_page):
    page.get_by_role("button", name="latch", exact=True).click()
    page.get_by_role("group", name="g candidate").get_by_label("bias").fill("-1.25")
    page.get_by_label("Step", exact=True).fill("9")
    page.wait_for_function("location.hash.endsWith(';9')")
    state = page.evaluate("laboratory.gates.state")
    assert (state["w"][8], state["t"]) == (-1.25, 9)
    place = page.evaluate("location.hash")
    for link in (place, place.replace(",", "%2C").replace(";", "%3B")):
        assert open_page(link).evaluate("laboratory.gates.state") == state
    page.get_by_role("button", name="Copy the link").first.click()
    page.wait_for_function(
        "document.body.textContent.includes('Copied') || document.body.textContent.includes('bar')"
    )


@pytest.mark.parametrize("place", ["#gates=1,2;x;3", "#gates=;;", "#gates=<b>", "#one-cell", "#gates=NaN"])
def test_a_link_that_says_nothing_changes_nothing(open_page, page, place):
    other = open_page(place)
    assert other.evaluate("laboratory.gates.state") == page.evaluate("laboratory.gates.state")
    if "=" in place:
        other.get_by_text("The link could not be read").wait_for(state="attached")


def answer_time(page, keys=("ArrowLeft",)):
    """Milliseconds from a key to the next picture, the median of 21; whatever has the focus gets the keys."""
    page.evaluate("""() => {
      globalThis.answered = [];
      globalThis.onkeydown = event => {
        const begun = event.timeStamp;
        requestAnimationFrame(() => setTimeout(() => answered.push(performance.now() - begun)));
      };
    }""")
    for k in range(21):
        page.keyboard.press(keys[k % len(keys)])
        page.wait_for_timeout(30)
    page.wait_for_function("answered.length === 21")
    return statistics.median(page.evaluate("answered"))


def test_a_keystroke_is_answered_at_once(page):
    page.get_by_role("group", name="f forget gate").get_by_label("bias").focus()
    assert answer_time(page) < 50


# The gradient explorer


def explore(page, **state):
    """The curves at a state; what is not named stays as it is."""
    page.evaluate(
        "state => { Object.assign(laboratory.gradient.state, state); laboratory.gradient.update(); }", state
    )
    return {name: torch.tensor(values) for name, values in page.evaluate("laboratory.gradient.curves").items()}


def test_the_lines_are_those_of_autograd(page):
    curves = explore(page, bias=2.0, length=30, scale=1.5, seed=4)
    weights, x = page.evaluate("""() => {
      const { net, xs } = laboratory.gradient;
      return [["weight_ih", "weight_hh", "bias_ih", "bias_hh"].map(name => [...net.p[name]]), xs.map(x => [...x])];
    }""")
    layer = nn.LSTM(4, 16).double().requires_grad_(False)
    for value, numbers in zip(layer.parameters(), weights, strict=True):
        value.copy_(torch.tensor(numbers).view_as(value))
    assert (layer.bias_ih_l0 + layer.bias_hh_l0)[16:32].tolist() == [2.0] * 16
    x = torch.tensor(x, dtype=torch.float64)
    assert x.shape == (30, 4)
    norms = torch.autograd.functional.jacobian(lambda x: layer(x)[0][-1], x).square().sum((0, 2)).sqrt().flip(0)
    torch.testing.assert_close(curves["whole"].double(), norms / norms[0], rtol=1e-5, atol=0)
    h = torch.cat([torch.zeros(1, 16), layer(x)[0][:-1]]).double()
    a = x @ layer.weight_ih_l0.T + layer.bias_ih_l0 + h @ layer.weight_hh_l0.T + layer.bias_hh_l0
    direct = torch.sigmoid(a[1:, 16:32]).flip(0).cumprod(0).mean(1)
    torch.testing.assert_close(curves["direct"][1:].double(), direct, rtol=1e-5, atol=0)
    formula = torch.sigmoid(torch.tensor(2.0)) ** torch.arange(30)
    torch.testing.assert_close(curves["formula"], formula, rtol=1e-5, atol=0)


def test_what_is_read_off_the_lines(page):
    bias = page.locator("#lab-gradient").get_by_label("Forget bias b")
    bias.fill("3")
    shown = page.locator("#lab-gradient table tbody tr").all_inner_texts()
    value = page.evaluate("laboratory.gradient.curves.whole[50]")
    assert shown[0].split("\t")[1:] == [f"{value:.3g}", str(below_half(page, "whole"))]
    assert f"{math.log(2) / math.log1p(math.exp(-3)):.1f} steps" in page.locator("#lab-gradient").inner_text()
    page.wait_for_function("location.hash === '#gradient=3,60,1,50,0'")


def below_half(page, line):
    return page.evaluate(f"laboratory.gradient.curves.{line}.findIndex(v => v <= 0.5)")


def test_the_gradient_s_experiments_come_out(page):
    assert explore(page, bias=0)["whole"][50] < 1e-9
    at_three = explore(page, bias=3)
    assert at_three["whole"][50] > 0.08
    assert at_three["whole"][50] > 2 * at_three["direct"][50]
    cut = explore(page, scale=0)
    below = (cut["whole"] / cut["direct"])[5:]  # side by side: the ratio hardly moves
    assert 0.4 < below.min() <= below.max() < 0.8
    burst = [explore(page, bias=0, scale=8, seed=seed)["whole"][50] for seed in range(10)]
    assert burst[0] > 10
    assert sum(value < 1 for value in burst) > 5


def test_a_keystroke_in_the_explorer_is_answered_at_once(page):
    explore(page, length=100, bias=5)  # so that each key moves it
    page.locator("#lab-gradient").get_by_label("Forget bias b").focus()
    assert answer_time(page) < 50


# Train one


def test_tasks_are_as_described_and_chance_is_their_best_guess(page):
    made = page.evaluate("""() => Object.fromEntries(Object.entries(laboratory.TASKS).map(([name, task]) => {
      const random = lstm.uniform(7);
      return [name, { chance: task.chance, count: task.answers(21),
        made: Array.from({ length: 1000 }, () => task.make(21, random)) }];
    }))""")
    for name, task in made.items():
        x = torch.tensor([one["xs"] for one in task["made"]], dtype=torch.float32)
        y = [[v for v in one["ys"] if v is not None] for one in task["made"]]
        assert {len(one) for one in y} == {task["count"]}
        assert task["made"][0]["ys"][-1] is not None
        y = torch.tensor(y, dtype=torch.float32)
        if name == "adding":
            assert ((x[..., 1] == 1).sum(1) == 2).all()
            assert (x[:, :10, 1].sum(1) == 1).all()
            torch.testing.assert_close((x[..., 0] * x[..., 1]).sum(1), y[:, 0])
        elif name == "latch":
            assert torch.equal(x[:, 0, 0], y[:, 0])
            assert not x[:, 1:, 0].any()
            assert abs(x[..., 1].std() - 1) < 0.03
        else:
            assert torch.equal(x[:, :-5, 0], y)  # 5 is a quarter of 21
        assert (y - y.mean()).square().mean() == pytest.approx(task["chance"], rel=0.1)


def set_up(page, **state):
    """A fresh training with these settings, by the address."""
    at_first = {"task": 1, "unit": 0, "units": 16, "length": 20, "bias": 1, "rate": 2, "clip": 1, "seed": 0}
    page.evaluate(
        "place => { location.hash = place; }", f"#train={','.join(map(str, (at_first | state).values()))}"
    )
    page.wait_for_function("n => laboratory.train[0].state.seed === n", arg=state.get("seed", 0))


def losses(page, steps):
    return page.evaluate(
        """steps => {
          const { made } = laboratory.train[0];
          while (made.losses.length < steps) made.pieces.next();
          return made.losses;
        }""",
        steps,
    )


@pytest.mark.parametrize("task", range(3))
def test_a_hundred_steps_in_the_page_are_pytorchs(page, task):
    """The same weights and sequences, drawn in the page, and the same clipping and Adam, by PyTorch."""
    unit = list(UNITS)[task]
    settings = {"task": task, "unit": task, "units": 6, "length": 10, "rate": 3, "clip": 0, "seed": 5}
    set_up(page, **settings)
    drawn = page.evaluate(
        """unit => {
          const random = lstm.uniform(5), { task } = laboratory.train[0].made;
          const net = lstm.network(unit, task.inputs, 6, random, 1);
          const made = Array.from({ length: 1600 }, () => task.make(10, random));
          return { p: Object.values(net.p).map(v => [...v]), xs: made.map(m => m.xs), ys: made.map(m => m.ys) };
        }""",
        unit,
    )
    x = torch.tensor(drawn["xs"], dtype=torch.float64).view(100, 16, 10, -1)
    y = torch.tensor([[math.nan if v is None else v for v in ys] for ys in drawn["ys"]]).double().view(100, 16, 10)
    net = Net(unit, x.shape[-1], 6)
    with torch.no_grad():
        for value, numbers in zip(net.parameters(), drawn["p"], strict=True):
            value.copy_(torch.tensor(numbers, dtype=torch.float64).view_as(value))
    optimizer, curve = torch.optim.Adam(net.parameters(), lr=0.03), []
    for batch, answers in zip(x, y, strict=True):
        scored = ~answers.isnan()
        loss = mse_loss(net(batch)[scored], answers[scored])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()
        curve.append(loss.item())
    torch.testing.assert_close(torch.tensor(losses(page, 100)), torch.tensor(curve), rtol=0.01, atol=0)


def test_a_forget_bias_of_1_learns_the_latch_and_0_does_not(page):
    """The first experiment of the text, with its numbers; the second at a third of its steps."""
    set_up(page)
    with_bias = page.evaluate("laboratory.train[0].made.lags[19]")
    curve = losses(page, 100)
    assert statistics.mean(curve[:10]) > 0.8
    assert statistics.mean(curve[80:]) < 0.01
    set_up(page, bias=0)
    assert 0.01 < with_bias < 0.1
    assert page.evaluate("laboratory.train[0].made.lags[19]") < 1e-4
    assert statistics.mean(losses(page, 150)[100:]) > 0.9
    set_up(page, length=60, bias=5)
    assert statistics.mean(losses(page, 100)[80:]) < 0.01


def test_start_pause_step_and_reset(page):
    lab = page.locator("#lab-train")
    set_up(page, units=4, length=8, seed=3)
    lab.get_by_role("button", name="Step").click()
    lab.get_by_role("button", name="Step").click()
    assert page.evaluate("laboratory.train[0].made.losses.length") == 2
    assert "2 steps" in lab.locator(".lab-counted").inner_text()
    lab.get_by_role("button", name="Start").click()
    page.wait_for_function("laboratory.train[0].made.losses.length > 20")
    lab.get_by_role("button", name="Pause").click()
    first = page.evaluate("laboratory.train[0].made.losses")
    page.wait_for_timeout(200)
    assert page.evaluate("laboratory.train[0].made.losses.length") == len(first)
    lab.get_by_role("button", name="Reset").click()
    assert page.evaluate("laboratory.train[0].made.losses") == []
    assert losses(page, len(first)) == first
    lab.get_by_label("Length").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("laboratory.train[0].state.length") == 9
    assert page.evaluate("laboratory.train[0].made.losses") == []


def test_training_never_blocks_the_page(page):
    set_up(page, units=32, length=100)
    page.locator("#lab-train").get_by_role("button", name="Start").click()
    page.get_by_role("group", name="f forget gate").get_by_label("bias").focus()
    assert answer_time(page) < 50
    page.wait_for_function("laboratory.train[0].made.losses.length > 0")


def test_two_stand_side_by_side(page, open_page):
    page.get_by_role("button", name="Train another one beside it").click()
    state = page.evaluate("laboratory.train.map(one => one.state)")
    assert (state[1]["bias"], state[0] | {"bias": 0}) == (0, state[1])
    page.get_by_role("group", name="Second network").get_by_label("Seed").fill("8")
    page.wait_for_function("location.hash.includes('beside=')")
    assert open_page(page.evaluate("location.hash")).evaluate("laboratory.train[1].state.seed") == 8


# Type and watch: the file


@pytest.fixture(scope="module")
def reader():
    """The reader of the page, its characters, and the plays that it has not seen, as codes."""
    text = lab_model.PATH.read_text(encoding="utf-8")
    alphabet, codes = lab_model.plays()
    assert lab_model.described(text)["alphabet"] == alphabet.tobytes().decode()
    return lab_model.read(text), alphabet.tobytes().decode(), codes


def test_the_weights_say_where_they_come_from(reader):
    text = lab_model.PATH.read_text(encoding="utf-8")
    model, head = lab_model.described(text), text.partition('"use strict"')[0]
    assert f"{lab_model.STEPS:,} steps of {lab_model.BATCH} windows of {lab_model.T} characters" in head
    assert "tools/lab_model.py: " in head
    assert f"seed {lab_model.SEED}." in head
    assert "public domain" in head
    assert model["sizes"] == [lab_model.EMBEDDED, lab_model.HIDDEN]
    for part in lab_model.PARTS:
        assert lab_model.bits(reader[0], reader[2][part]) == pytest.approx(model["bits"][part], abs=1e-3)
        assert str(model["bits"][part]) in head


def test_the_recipe_makes_such_a_file(reader, monkeypatch):
    """Two of its steps: the same arrays by name and shape, and what is read back is what was written."""
    monkeypatch.setattr(lab_model, "STEPS", 2)
    _, alphabet, codes = reader
    made = lab_model.train(len(alphabet), codes["train"], alphabet.index("["))
    before = {name: value.clone() for name, value in made.state_dict().items()}
    text = lab_model.written(made, np.frombuffer(alphabet.encode(), dtype=np.uint8), codes)
    new, old = (lab_model.described(t) for t in (text, lab_model.PATH.read_text(encoding="utf-8")))
    assert new.keys() == old.keys()
    assert {k: v["shape"] for k, v in new["arrays"].items()} == {k: v["shape"] for k, v in old["arrays"].items()}
    assert len(text) == pytest.approx(lab_model.PATH.stat().st_size, abs=200)
    for name, value in lab_model.read(text).state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=before[name].abs().max().item() / 65_000)
        assert torch.equal(value, made.state_dict()[name])


# Type and watch: the page


def as_torch(reader, text):
    """Gates, states and odds of each character (T, …), by PyTorch's layer, with the page's weights in float64."""
    model, alphabet = copy.deepcopy(reader[0]).double(), reader[1]
    with torch.no_grad():
        x = model.embed(torch.tensor([[alphabet.index(sign) for sign in text]]))
        plain = nn.LSTM(lab_model.EMBEDDED, lab_model.HIDDEN, batch_first=True).double()
        plain.load_state_dict(model.rnn.state_dict())
        h, c, state = [], [], None
        for x_t in x.unbind(1):
            out, state = plain(x_t[:, None], state)
            h.append(out[0, 0])
            c.append(state[1][0, 0])
        h, c = torch.stack(h), torch.stack(c)
        last = torch.cat([torch.zeros_like(h[:1]), h[:-1]])
        a = x[0] @ plain.weight_ih_l0.T + plain.bias_ih_l0 + last @ plain.weight_hh_l0.T + plain.bias_hh_l0
        i, f, g, o = a.chunk(4, dim=1)
        gates = {"i": i.sigmoid(), "f": f.sigmoid(), "g": g.tanh(), "o": o.sigmoid()}
        return gates | {"c": c, "h": h, "odds": model.head(h).softmax(-1)}


def typed(page, text, at=None):
    """Put a text into the field, at once, and the cursor to a place in it (the end)."""
    page.get_by_label("Type here").fill(text)
    page.get_by_label("Type here").evaluate(
        "(e, at) => { e.focus(); e.setSelectionRange(at, at); }", len(text) if at is None else at
    )
    page.wait_for_function("at => laboratory.type.state.at === at", arg=len(text) if at is None else at)


def of_page(page, what):
    return page.evaluate(f"() => {{ const {{ state, steps }} = laboratory.type; return {what}; }}")


def steps_of(page, names="ifgoch"):
    found = of_page(page, f"steps.map(s => [...'{names}'].map(name => [...s[name]]))")
    return dict(zip(names, torch.tensor(found, dtype=torch.float64).unbind(1), strict=True))


def macbeth(page):
    return page.evaluate("laboratory.type.TEXTS['a page of Macbeth']")


def test_the_texts_are_of_a_play_that_it_has_not_seen(page, reader):
    _, alphabet, codes = reader
    play = "".join(alphabet[k] for k in codes["test"].tolist())
    texts = page.evaluate("laboratory.type.TEXTS")
    assert len(texts["a page of Macbeth"]) > 500
    for text in texts.values():
        assert text in play


def test_the_reader_in_the_page_is_pytorchs(page, reader):
    text = macbeth(page)
    wanted, found = as_torch(reader, text), steps_of(page)
    for name, values in found.items():
        close(values.tolist(), wanted[name], 1e-5)
    close(of_page(page, "steps.map(s => [...s.odds])"), wanted["odds"], 1e-5)
    p = wanted["odds"][torch.arange(len(text) - 1), [reader[1].index(sign) for sign in text[1:]]]
    close(of_page(page, "steps.map(s => s.bits)")[1:], -p.log2(), 1e-4)


def test_how_a_text_was_typed_makes_no_difference(page):
    typed(page, "Who's there?\n\n[Ent")
    page.keyboard.type("er Macbeth.]", delay=1)
    page.keyboard.press("Home")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.keyboard.type("-enter")
    page.keyboard.press("Delete")
    step_by_step = steps_of(page)
    text = of_page(page, "state.text")
    typed(page, "")
    assert of_page(page, "steps.length") == 0
    assert sum(page.evaluate("[...laboratory.type.odds()]")) == pytest.approx(1)
    typed(page, text)
    for name, values in steps_of(page).items():
        assert torch.equal(values, step_by_step[name])
    assert page.locator("#lab-type .lab-colours").inner_text().replace("↵\n", "\n").rstrip() == text.rstrip()


def test_what_it_has_never_met_is_a_space_and_is_named(page):
    typed(page, "Caf\u00e9 \u201cnoir\u201d 0")
    strange = of_page(page, "steps.map(s => [...s.c])")
    assert "never met \u00e9 0 and" in page.locator("#lab-type").inner_text()
    typed(page, 'Caf  "noir"  ')
    assert of_page(page, "steps.map(s => [...s.c])") == strange
    assert "never met" not in page.locator("#lab-type").inner_text()


def test_memory_is_what_the_odds_do_when_a_character_is_replaced(page, reader):
    text = macbeth(page)[300:390]
    typed(page, text)
    found = dict(page.evaluate("laboratory.type.memory()"))
    assert list(found) == list(reversed(range(len(text))))
    whole = as_torch(reader, text)["odds"][-1]
    for k in (0, 3, 40, 70, *range(len(text) - 6, len(text))):
        other = "e" if text[k] in " \n" else " "
        without = as_torch(reader, text[:k] + other + text[k + 1 :])["odds"][-1]
        assert found[k] == pytest.approx((whole - without).abs().sum().item() / 2, abs=1e-5)
    page.locator("#lab-type").get_by_label("Colour by").select_option("memory")
    page.wait_for_function("n => Object.keys(laboratory.type.memories).length === n", arg=len(text))
    assert page.evaluate("laboratory.type.memories") == [found[k] for k in range(len(text))]
    page.get_by_text("The last fifty characters").click()
    cells = page.locator("#lab-type .lab-all tbody tr").nth(3).inner_text().split("\t")
    assert cells[0] == str(len(text) - 3)
    assert cells[3] == f"{found[len(text) - 4]:.2f}"
    typed(page, text + "x" * 200)
    assert len(page.evaluate("laboratory.type.memory()")) == 100


def test_what_it_writes_follows_odds_temperature_and_seed(page, reader):
    lab = page.locator("#lab-type")

    def write(start, temperature, seed):
        typed(page, start)
        lab.get_by_label("Temperature").fill(str(temperature))
        lab.get_by_label("Seed").fill(str(seed))
        lab.get_by_role("button", name="Write 80").click()
        return of_page(page, "state.text")[len(start) :]

    start = "MACBETH.\nI have "
    cold, warm, again = (write(start, t, seed) for t, seed in ((0.1, 3), (1, 3), (1, 3)))
    assert len(warm) == 80
    assert warm == again != write(start, 1, 4)
    for text, temperature in ((cold, 0.1), (warm, 1.0)):
        odds = as_torch(reader, start + text)["odds"][len(start) - 1 : -1].pow(1 / temperature)
        odds = odds / odds.sum(1, keepdim=True)
        draws = page.evaluate(
            "n => { const random = lstm.uniform(30000 + n); return Array.from({ length: 80 }, random); }",
            len(start),
        )
        chosen = (odds.cumsum(1) <= torch.tensor(draws, dtype=torch.float64)[:, None]).sum(1)
        assert "".join(reader[1][k] for k in chosen.tolist()) == text
    lab.get_by_role("button", name="Take back").click()
    assert of_page(page, "state.text") == start
    typed(page, "a" * 1990)
    lab.get_by_role("button", name="Write 80").click()
    assert of_page(page, "state.text.length") == 2000


def test_the_search_finds_the_places(page, reader):
    lab, text = page.locator("#lab-type"), macbeth(page)
    lab.get_by_label("Cell", exact=True).fill("12")
    lab.get_by_label("Find where c is").select_option("below")
    lab.get_by_label("this value").fill("-0.4")
    on = as_torch(reader, text)["c"][:, 12] < -0.4
    runs = [[m.start(), m.end()] for m in re.finditer("1+", "".join(str(int(v)) for v in on))]
    assert len(runs) > 3
    assert page.evaluate("laboratory.type.runs()") == runs
    assert f"at {int(on.sum())} of {len(text)} characters, in {len(runs)} places" in lab.inner_text()
    lab.locator(".lab-found button").first.click()
    a, b = max(runs, key=lambda run: run[1] - run[0])
    assert of_page(page, "state.at") == b
    assert page.evaluate("getSelection().toString()") == text[a:b]


def test_which_cells_mark_a_selection(page, reader):
    lab, text = page.locator("#lab-type"), macbeth(page)
    ask = lab.get_by_role("button", name="Which cells mark")
    ask.click()
    assert "Select some characters" in lab.inner_text()
    a, b = text.index("["), text.index("]") + 1
    lab.get_by_label("Type here").evaluate("(e, [a, b]) => { e.focus(); e.setSelectionRange(a, b); }", [a, b])
    ask.click()
    c = as_torch(reader, text)["c"]
    inside = torch.zeros(len(text), dtype=torch.bool)
    inside[a:b] = True
    area = (c[inside][:, None] > c[~inside]).double().mean((0, 1))  # no two are equal
    best = (area - 0.5).abs().argsort(descending=True)[:5].tolist()
    assert lab.locator(".lab-marked button").all_inner_texts() == [
        f"{k}: {0.5 + abs(area[k] - 0.5):.2f}, {'lower' if area[k] < 0.5 else 'higher'}" for k in best
    ]
    lab.locator(".lab-marked button").nth(1).press("Enter")
    assert of_page(page, "state.cell") == best[1]
    assert page.evaluate("laboratory.type.area([1, 2, 2, 3], k => k > 1)") == 0.875


def test_type_and_watch_by_keys_alone(page):
    """From the field on with Tab; what changed is said."""
    lab = page.locator("#lab-type")
    typed(page, "")
    says = lab.locator("[role=status]").last.element_handle()
    page.keyboard.type("Give th")
    page.wait_for_function("e => /^After h: next e \\d+ %/.test(e.textContent)", arg=says)
    assert lab.locator(".lab-next tbody tr").first.inner_text().split()[0] == "e"
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("laboratory.type.state.at === 6")  # a browser tells of a moved cursor a moment later
    assert "h ← it came" in lab.locator(".lab-next").inner_text()
    page.keyboard.press("Tab")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert of_page(page, "state.cell") == 1
    assert of_page(page, "state.at") == 6
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert of_page(page, "state.shade") == "h"
    assert "lab-hidden" in lab.locator(".lab-colours").get_attribute("class")
    for name in ("Temperature", "Seed", "Write 80 characters"):
        while name not in page.evaluate(
            "document.activeElement.labels?.[0]?.textContent ?? document.activeElement.textContent"
        ):
            page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert of_page(page, "state.text.length") == 87
    page.wait_for_function("e => e.textContent.startsWith('It wrote: ')", arg=says)


@pytest.mark.parametrize("shade", ["c", "memory", "surprise"])
def test_a_typed_character_is_answered_at_once(page, shade):
    page.locator("#lab-type").get_by_label("Colour by").select_option(shade)
    typed(page, macbeth(page)[:200])
    assert answer_time(page, keys=[*"And yet I ", "Backspace"]) < 50


def test_the_link_carries_text_and_place(page, open_page):
    typed(page, 'Sweet & "bitter" = 100 %,\ncaf\u00e9;', 7)
    page.locator("#lab-type").get_by_label("Cell", exact=True).fill("9")
    page.wait_for_function("location.hash.startsWith('#type=9,')")
    state = of_page(page, "state")
    place = page.evaluate("location.hash")
    other = open_page(place)
    assert of_page(other, "state") == state
    assert of_page(other, "steps.length") == len(state["text"])
    for wrong in ("#type=1,2;!", "#type=9", "#type=a,0,1,1,1;QQ"):
        other = open_page(wrong)
        other.get_by_text("The link could not be read").wait_for(state="attached")
        assert of_page(other, "state.text") == macbeth(page)


def test_cell_62_finds_directions_and_names(page, reader):
    """What the text says first, with the place and the level that the page begins with."""
    text, lab = macbeth(page), page.locator("#lab-type")
    assert of_page(page, "[state.cell, state.shade]") == [62, "c"]
    assert lab.get_by_label("this value").input_value() == "2"
    runs = page.evaluate("laboratory.type.runs()")
    found = sorted((text[a:b] for a, b in runs), key=len, reverse=True)
    assert found[0] == "Enter Macbeth, and a Servant with a t"
    assert sorted(found[1:]) == ["ANQUO.", "CBETH", "UO", "Wh"]
    model, alphabet, codes = reader
    play = "".join(alphabet[k] for k in codes["test"].tolist())
    c = trace(model.rnn, model.embed(codes["test"][: len(play) // 500 * 500].view(-1, 500)).detach()).c[
        0, 0, :, :, 62
    ]
    opened, blank, line = -1, -1, -1  # where the last ones stood
    direction, first = [], []
    for k, sign in enumerate(play[: c.numel()]):
        if sign == "\n":
            blank, line = (k if play[k - 1] == "\n" else blank), k
        opened = k if sign == "[" else -1 if sign == "]" or blank == k else opened
        direction.append(opened >= 0)
        first.append(blank == line)
    late = torch.arange(500) >= 50
    for labels, said in ((direction, 0.91), (first, 0.95)):
        on = torch.tensor(labels).view(-1, 500)[:, late]
        rank = c.T[:, late].flatten().argsort().argsort().double() + 1
        n = on.sum().item()
        area = (rank[on.flatten()].sum().item() - n * (n + 1) / 2) / (n * (on.numel() - n))
        assert area == pytest.approx(said, abs=0.006)


def test_an_opening_bracket_is_remembered(page, reader):
    lab = page.locator("#lab-type")
    lab.get_by_role("button", name="a question").click()
    lab.get_by_label("Type here").focus()
    page.keyboard.type("[")
    assert lab.locator(".lab-next tbody tr").first.inner_text().split() == ["E", "73", "%"]
    page.keyboard.type("To the messenger.")
    assert lab.locator(".lab-next tbody tr").first.inner_text().split() == ["]", "96", "%"]
    lab.get_by_label("Colour by").select_option("memory")
    page.wait_for_function("laboratory.type.memories[0] !== undefined")
    felt, text = page.evaluate("laboratory.type.memories"), of_page(page, "state.text")
    opened = text.index("[")
    assert len(text) - opened == 18
    assert felt[opened] == pytest.approx(0.29, abs=0.005)
    assert max(felt[:opened]) < 0.045
    says = lab.locator("[role=status]").last.element_handle()
    page.wait_for_function("e => e.textContent.includes('13 back, matters most: 0.74')", arg=says)
    odds = as_torch(reader, text.replace("[", " "))["odds"][-1]
    assert odds[reader[1].index("]")].item() == pytest.approx(0.68, abs=0.005)


def test_the_memory_of_cell_12_ends_with_the_word(page, reader):
    text = macbeth(page)
    f = as_torch(reader, text)["f"][:, 12]
    assert f[[sign == " " for sign in text]].max() < 0.105
    assert f[[sign.isalpha() for sign in text]].mean() == pytest.approx(0.59, abs=0.005)


@pytest.mark.parametrize(("part", "said"), [("[", "62: 0.98, higher"), ("like lead", "56: 0.96, lower")])
def test_the_best_of_64_cells(page, part, said):
    text = macbeth(page)
    assert text.split("\n")[3].endswith("like lead upon me,")
    a, b = (
        (text.index(part), text.index(part) + len(part)) if part != "[" else (text.index("["), text.index("]") + 1)
    )
    page.get_by_label("Type here").evaluate("(e, [a, b]) => { e.focus(); e.setSelectionRange(a, b); }", [a, b])
    page.get_by_role("button", name="Which cells mark").click()
    assert page.locator(".lab-marked button").first.inner_text() == said


def test_temperature_makes_a_bore_or_a_babbler(page, reader):
    lab, text = page.locator("#lab-type"), macbeth(page)
    seen = set(re.findall("[a-z]{3,}", "".join(reader[1][k] for k in reader[2]["train"].tolist()).lower()))

    def known(temperature, seed, times=4):
        """The share of words that are in the plays that were read, and what was written."""
        typed(page, text)
        lab.get_by_label("Temperature").fill(str(temperature))
        lab.get_by_label("Seed").fill(str(seed))
        for _ in range(times):
            lab.get_by_role("button", name="Write 80").click()
        more = of_page(page, "state.text")[len(text) :]
        words = re.findall("[a-z]{3,}", more.lower())
        return sum(word in seen for word in words) / len(words), more

    assert "the say the sail to the sail" in known(0.1, 1, times=2)[1]
    usual, wild = ([known(temperature, seed)[0] for seed in range(1, 7)] for temperature in (0.7, 2))
    assert 0.7 < statistics.mean(usual) < 0.8
    assert 0.05 < statistics.mean(wild) < 0.15


@pytest.mark.parametrize("theme", THEMES)
def test_a_phone_shows_all_of_it_and_axe_finds_nothing(browser, file, theme):
    axe = pytest.importorskip("axe_playwright_python", reason="needs pip install -r requirements-look.txt")
    rules = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    context = browser.new_context(viewport={"width": 390, "height": 844}, reduced_motion="reduce")
    page = context.new_page()
    page.goto(file)
    names = ("text-base", "text-muted", "background", "surface", "border")
    style = "".join(f"--pst-color-{name}: {value};" for name, value in zip(names, THEMES[theme], strict=True))
    page.add_style_tag(
        content=f":root {{ {style} }} body {{ color: {THEMES[theme][0]}; background: {THEMES[theme][2]} }}"
    )
    page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
    typed(page, "And\n\n[Enter a Servant.]\n\n" + "w" * 90)
    page.get_by_text("The last fifty characters").click()
    page.evaluate(rules)
    found = []
    for shade in ("c", "f", "memory"):
        page.locator("#lab-type").get_by_label("Colour by").select_option(shade)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        options = {"runOnly": look.RULES, "preload": False}
        result = page.evaluate("options => axe.run('#lab-type', options)", options)
        found += [(shade, v["id"], v["nodes"][0]["html"]) for v in result["violations"]]
    assert found == []
    context.close()
