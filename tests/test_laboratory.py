"""The laboratory: its JavaScript against PyTorch, in a browser and from the disk; its files, without one."""

import math
import re
import statistics
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import laboratory
import look
from chapters import ROOT
from lstm_lib.book.plots import COLOUR

LAB = ROOT / "book" / "_static" / "lab"
SCRIPTS = [LAB / f"{name}.js" for name in laboratory.SCRIPTS]
PAGE = (ROOT / "book" / "laboratory.md").read_text(encoding="utf-8")
BOXES = re.findall(r"^```\{laboratory\} (\w+)$", PAGE, re.MULTILINE)
UNITS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
every_unit = pytest.mark.parametrize("unit", UNITS)

# Files


def test_every_script_is_loaded_and_weighs_little():
    assert {path.name for path in LAB.glob("*.js")} == {path.name for path in SCRIPTS}
    assert sum(path.stat().st_size for path in SCRIPTS) < 60_000


def test_scripts_and_style_ask_nothing_of_the_network():
    for path in [*SCRIPTS, LAB / "lab.css"]:
        text = path.read_text(encoding="utf-8")
        text = text.replace('"http://www.w3.org/2000/svg"', "")  # a name, not an address
        assert not re.search(r"https?:|fetch\(|XMLHttpRequest|WebSocket|import\(|url\([^#]", text), path.name


def test_quantities_have_the_colours_of_the_figures():
    style = (LAB / "lab.css").read_text(encoding="utf-8")
    named = dict(re.findall(r"--lab-(\w+): (#\w+);", style))
    assert len(named) > 8
    assert named == {name: COLOUR[name] for name in named}


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
def test_gradients_of_inputs_and_states_are_autograds(page, unit):
    net = Net(unit, input_size=2, hidden_size=6, seed=2)
    x = torch.randn(1, 12, 2, dtype=torch.float64, requires_grad=True)
    found = script(
        page,
        """const net = made(values.net), steps = lstm.forward(net, values.x), given = [];
           given[steps.length - 1] = new Float64Array(net.hiddenSize).fill(1);
           const back = lstm.backward(net, steps, given);
           return { x: back.x.map(plain), lags: plain(lstm.gradientByLag(net, steps)) };""",
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
    even = torch.tensor(script(page, draws, seed=1, normal=False))
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
        assert page.locator("#lab-gates .lab-sentence").inner_text() == preset["says"]
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

    ones = (x["count"] == 1).cumsum(0)
    assert ones[-1] == 8
    assert (c["count"] - 0.995 * ones).abs().max() < 0.02
    assert abs(h["count"][ones == 8][0] - h["count"][ones == 4][0]) < 0.001
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
    assert (x["latch"] == 1).sum() > 2

    asked, shown = x["show when asked"] == 1, h["show when asked"]
    assert (c["show when asked"][6:] - 2 * 0.995).abs().max() < 0.02
    assert shown[asked].min() > 0.9
    assert shown[~asked].abs().max() < 0.001

    f = 1 / (1 + math.exp(-2))
    assert (round(1 - f, 2), round(f, 2)) == (0.12, 0.88)
    assert abs(c["average"][13] / math.tanh(1) - (1 - f**10)) < 1e-6

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
    page.get_by_role("button", name="count", exact=True).click()
    page.get_by_label("Step", exact=True).fill("7")
    shown = page.locator("#lab-gates .lab-filled").all_inner_texts()
    assert len(shown) == 6
    h, c = by_pytorch(*page.evaluate("[laboratory.gates.PRESETS.count.w, laboratory.gates.PRESETS.count.x]"))
    assert shown[0] == f"= σ(20.00 × 1.00 + 0.00 × {h[5]:.2f} − 10.00) = σ(10.00) = 1.000"
    assert shown[4].startswith(f"= 1.000 × {c[5]:.2f} + 1.000 × 1.00") or "0.99" in shown[4]
    assert shown[4].endswith(f" = {c[6]:.3f}")
    assert shown[5].endswith(f" = {h[6]:.3f}")


def test_keys_move_a_slider_and_the_numbers_follow(page):
    bias = page.get_by_role("group", name="f forget gate").get_by_label("bias")
    bias.focus()
    page.keyboard.press("ArrowLeft")
    assert bias.input_value() == "9.5"
    _, c = by_pytorch(*page.evaluate("[laboratory.gates.state.w, laboratory.gates.state.x]"))
    page.get_by_label("Step", exact=True).focus()
    page.keyboard.press("End")
    assert page.locator("#lab-gates .lab-filled").all_inner_texts()[4].endswith(f" = {c[-1]:.3f}")
    page.get_by_label("x at this step").focus()
    page.keyboard.press("Home")
    assert page.evaluate("laboratory.gates.state.x[23]") == -1
    says = page.locator("#lab-gates [role=status]")
    page.wait_for_function("e => e.textContent.startsWith('Step 24: x −1.00')", arg=says.element_handle())


def test_a_stroke_draws_the_input(page):
    page.get_by_role("button", name="Clear the input").click()
    box = page.locator(".lab-pen").bounding_box()
    page.mouse.move(box["x"] + 35, box["y"] + 24)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 10, box["y"] + 24)
    page.mouse.up()
    page.mouse.move(box["x"] + 60, box["y"] + 100)
    drawn = page.evaluate("laboratory.gates.state.x")
    assert len(drawn) == 24
    assert min(drawn) > 0.9
    box = page.locator(".lab-trace").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 30)
    assert page.evaluate("laboratory.gates.state.t") in (12, 13)


def test_the_link_carries_the_state(page, open_page):
    page.get_by_role("button", name="latch", exact=True).click()
    page.get_by_role("group", name="g candidate").get_by_label("bias").fill("-1.25")
    page.get_by_label("Step", exact=True).fill("9")
    page.wait_for_function("location.hash.endsWith(';9')")
    state = page.evaluate("laboratory.gates.state")
    assert (state["w"][8], state["t"]) == (-1.25, 9)
    again = open_page(page.evaluate("location.hash"))
    assert again.evaluate("laboratory.gates.state") == state


@pytest.mark.parametrize("place", ["#gates=1,2;x;3", "#gates=;;", "#gates=<b>", "#one-cell", "#gates=NaN"])
def test_a_link_that_says_nothing_changes_nothing(open_page, page, place):
    assert open_page(place).evaluate("laboratory.gates.state") == page.evaluate("laboratory.gates.state")


def test_a_keystroke_is_answered_at_once(page):
    page.get_by_role("group", name="f forget gate").get_by_label("bias").focus()
    page.evaluate("""() => {
      globalThis.answered = [];
      addEventListener("keydown", event => {
        const begun = event.timeStamp;
        requestAnimationFrame(() => setTimeout(() => answered.push(performance.now() - begun)));
      }, true);
    }""")
    for _ in range(21):
        page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(30)
    page.wait_for_function("answered.length === 21")
    assert statistics.median(page.evaluate("answered")) < 50
