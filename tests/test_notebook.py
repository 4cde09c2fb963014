"""What the first cell of a chapter promises."""

import ast
from xml.etree import ElementTree

import pytest
import torch
from jupyter_client.manager import start_new_kernel

from lstm_lib.book import claims, notebook


@pytest.fixture(autouse=True)
def torch_as_it_was():
    """What `start` sets is set for all tests of the process, and hypothesis needs denormal numbers."""
    threads, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = tf32


@pytest.fixture
def shown(monkeypatch):
    """The outputs that a cell would show."""
    outputs = []
    monkeypatch.setattr(notebook, "show", lambda data, metadata=None: outputs.append((data, metadata)))
    return outputs


def test_start_seeds_torch_and_gives_the_seeds():
    run = notebook.start("gates/the_cell", device="cpu", seed=3)
    first = torch.rand(4)
    again = notebook.start("gates/the_cell", device="cpu", seed=3)
    assert torch.equal(first, torch.rand(4))
    assert run.seeds(3) == again.seeds(3) == [3, 4, 5]
    assert run.device == torch.device("cpu")
    assert (run.pick(quick=1, full=2), notebook.start("x", "full", "cpu").pick(quick=1, full=2)) == (1, 2)


def test_start_turns_tf32_off():
    torch.backends.cudnn.allow_tf32 = True
    notebook.start("gates/the_cell", device="cpu")
    assert not torch.backends.cudnn.allow_tf32


def test_start_takes_denormal_numbers_for_zero():
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot")
    least = torch.tensor([1e-38])
    assert least / 1000 != 0
    notebook.start("gates/the_cell", device="cpu")
    assert least / 1000 == 0
    torch.set_flush_denormal(False)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"scale": "huge"}, ValueError, "^scale must be 'quick' or 'full', got 'huge'$"),
        ({"device": "abacus"}, ValueError, "^device.*abacus"),
        ({"device": "cuda:99"}, ValueError, "^device.*cuda:99"),
        ({"seed": "0"}, TypeError, "^seed must be a whole number, got '0'$"),
        ({"seed": True}, TypeError, "^seed must be a whole number, got True$"),
    ],
)
def test_start_says_what_it_needs(options, error, said):
    with pytest.raises(error, match=said):
        notebook.start("gates/the_cell", **options)


def test_claim_shows_its_evidence_before_it_fails(shown):
    run = notebook.start("gates/the_cell", device="cpu")
    run.claim("A02", "difference", torch.tensor(0.25), below=1)
    with pytest.raises(claims.BoundFailed):
        run.claim("A02", "difference", [torch.tensor(0.25), 2], below=1)
    values = [data[claims.MIME]["values"] for data, _ in shown]
    assert values == [[0.25], [0.25, 2.0]]
    assert "difference" in shown[0][0]["text/html"]
    assert "difference" in shown[0][0]["text/plain"]


BROKEN = """\
import os
os.environ["LSTM_LIB_STRICT"] = {strict!r}
from lstm_lib.book import notebook
run = notebook.start("gates/the_cell", device="cpu")
run.claim("A02", "difference", 2, below=1)
"""


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel()
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize(("person", "strict", "stops"), [(True, "", False), (False, "", True), (True, "1", True)])
def test_a_broken_bound_is_a_red_card_for_a_person_and_an_error_for_a_program(kernel, person, strict, stops):
    code, messages = BROKEN.format(strict=strict), []
    reply = kernel.execute_interactive(code, allow_stdin=person, output_hook=messages.append, timeout=120)
    assert reply["content"]["status"] == ("error" if stops else "ok")
    (card,) = [m["content"]["data"]["text/html"] for m in messages if m["msg_type"] == "display_data"]
    page = ElementTree.fromstring(card)
    assert "#c62828" in page.get("style")
    assert "The book promises below 1 here; this run has 2." in "".join(page.find("p[@role='alert']").itertext())


def test_a_card_whose_bound_holds_is_not_red(shown):
    notebook.start("gates/the_cell", device="cpu").claim("A02", "difference", 0.5, below=1)
    ((data, _),) = shown
    assert not any("style" in element.attrib for element in ElementTree.fromstring(data["text/html"]).iter())
    assert "broken" not in data["text/plain"]


def test_the_verdict_is_not_repeated_from_card_to_card(shown):
    run = notebook.start("gates/the_cell", device="cpu")
    for name in ("A02", "A02", "A04", "A02"):
        run.claim(name, "difference", 0, below=1)
    verdicts = ["claim-verdict" in data["text/html"] for data, _ in shown]
    assert verdicts == [True, False, True, True]


def test_evidence_is_escaped_in_html(shown):
    notebook.start("gates/the_cell", device="cpu").claim("A02", "|a < b & c|", 0, below=1)
    assert "|a &lt; b &amp; c|" in shown[0][0]["text/html"]


def test_glue_publishes_what_myst_nb_reads(shown):
    run = notebook.start("gates/the_cell", device="cpu")
    for name, value in {"the-error": torch.tensor(0.5), "count": 3, "name": "traffic"}.items():
        run.glue(name, value)
    found = {
        meta["scrapbook"]["name"]: ast.literal_eval(data["application/papermill.record/text/plain"])
        for data, meta in shown
    }
    assert found == {"the-error": 0.5, "count": 3, "name": "traffic"}


def test_what_a_chapter_says_bears_its_name(shown):
    notebook.start("gates/forget_gate", device="cpu").say(best_lag=3, word="level")
    assert [meta["scrapbook"]["name"] for _, meta in shown] == ["forget-gate-best-lag", "forget-gate-word"]


def test_a_table_has_a_head_and_a_cell_per_value(shown):
    notebook.start("gates/the_cell", device="cpu").table(("shape", "error"), [(2, 3), 0.5], ((4, 5), 0.25))
    ((data, _),) = shown
    page = ElementTree.fromstring(data["text/html"])
    assert [cell.text for cell in page.iterfind("table/thead/tr/th")] == ["shape", "error"]
    assert [[cell.text for cell in row] for row in page.iterfind("table/tbody/tr")] == [
        ["(2, 3)", "0.5"],
        ["(4, 5)", "0.25"],
    ]
    assert data["text/plain"] == "shape | error\n(2, 3) | 0.5\n(4, 5) | 0.25"


def test_report_tells_memory_and_versions(shown):
    notebook.start("gates/the_cell", device="cpu").report()
    report = shown[0][0][notebook.REPORT]
    assert report["versions"]["torch"] == torch.__version__
    assert report["host_peak_bytes"] is None or 2**26 < report["host_peak_bytes"] < 2**40
    assert report["device_peak_bytes"] is None
    assert report["device"]


@pytest.mark.parametrize(("given", "threads"), [(None, 1), ("2", 2)])
def test_one_thread_unless_the_environment_says_otherwise(monkeypatch, given, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    torch.set_num_threads(3)
    notebook.start("x", device="cpu")
    assert torch.get_num_threads() == threads


def test_bf16_kernel_is_there_where_it_runs():
    layer, x = torch.nn.LSTM(3, 4), torch.randn(5, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        if notebook.has_bf16_kernel():
            assert layer(x)[0].shape == (5, 2, 4)
        else:
            with pytest.raises(RuntimeError):
                layer(x)
