"""`models` against the article's own code, and each sequence of a padded batch against itself alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import ctc_loss, mse_loss

from lstm_lib.models import AcousticModel, DeepLSTM, LSTMModel
from lstm_lib.recurrent import LSTM
from lstm_lib.training import fit, predict


class Article(nn.Module):
    """The model as the article prints it."""

    def __init__(self, input_size, hidden_size, num_layers):
        super().__init__()
        self.lstm = nn.LSTM(
            input_size=input_size, hidden_size=hidden_size, num_layers=num_layers, batch_first=True
        )
        self.fc = nn.Linear(hidden_size, 1)

    def forward(self, x):
        h0 = torch.zeros(self.lstm.num_layers, x.size(0), self.lstm.hidden_size)
        c0 = torch.zeros(self.lstm.num_layers, x.size(0), self.lstm.hidden_size)
        out, _ = self.lstm(x, (h0, c0))
        return self.fc(out[:, -1, :])


sizes = st.integers(1, 5)


@settings(max_examples=25, deadline=None)
@given(sizes, sizes, st.integers(1, 3), sizes, sizes)
def test_without_padding_it_is_the_articles_model(input_size, hidden_size, num_layers, batch, seq_len):
    article = Article(input_size, hidden_size, num_layers)
    ours = LSTMModel(input_size, hidden_size, num_layers)
    ours.load_state_dict(article.state_dict(), strict=True)
    x = torch.randn(batch, seq_len, input_size)
    # not bit for bit: the article's linear layer reads a view with strides, and the CPU then adds in another order
    torch.testing.assert_close(ours(x), article(x), rtol=1e-6, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.data(), sizes, st.integers(1, 3), sizes, st.integers(1, 4), st.sampled_from([0.0, 1e3, float("nan")]))
def test_padded_batch_equals_each_sequence_alone(data, batch, num_layers, seq_len, output_size, padding):
    lengths = torch.tensor(data.draw(st.lists(st.integers(1, seq_len), min_size=batch, max_size=batch)))
    model = LSTMModel(3, 4, num_layers, output_size).double()
    x = torch.randn(batch, seq_len, 3, dtype=torch.float64)
    for sequence, length in zip(x, lengths, strict=True):
        sequence[length:] = padding
    together = model(x, lengths)
    alone = torch.cat([model(x[b : b + 1, :n]) for b, n in enumerate(lengths)])
    assert together.shape == (batch, output_size)
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)

    ours = torch.autograd.grad(together.sum(), model.parameters())
    theirs = torch.autograd.grad(alone.sum(), model.parameters())
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_it_starts_from_zeros_in_its_own_dtype():
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    assert LSTMModel(3, 4).double()(x).dtype == torch.float64
    with pytest.raises(RuntimeError):
        Article(3, 4, 1).double()(x)  # the article's h0 is float32


def test_dropout_acts_between_layers_only():
    x = torch.randn(2, 5, 3)
    model = LSTMModel(3, 4, num_layers=2, dropout=0.5)
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))
    with pytest.warns(UserWarning, match="num_layers greater than 1"):
        model = LSTMModel(3, 4, dropout=0.5)
    assert torch.equal(model(x), model(x))


MODELS = {
    "one vector": lambda **options: LSTMModel(3, 4, 2, **options),
    "acoustic": lambda **options: AcousticModel(3, 4, 5, **options),
}


@pytest.mark.parametrize(
    ("x", "lengths", "error", "message"),
    [
        (torch.zeros(5, 3), None, ValueError, r"x must be \(batch, seq_len, 3\), .*, got \(5, 3\)"),
        (torch.zeros(2, 5, 4), None, ValueError, r"x must be \(batch, seq_len, 3\), .*, got \(2, 5, 4\)"),
        (torch.zeros(2, 0, 3), None, ValueError, r"x must be .*, seq_len at least 1, got \(2, 0, 3\)"),
        ([[1.0]], None, TypeError, "x must be a Tensor, got list"),
        (torch.zeros(2, 5, 3), [5, 2], TypeError, "lengths must be a Tensor, got list"),
        (torch.zeros(2, 5, 3), np.array([5, 2]), TypeError, "lengths must be a Tensor, got ndarray"),
        (
            torch.zeros(2, 5, 3),
            torch.tensor([5]),
            ValueError,
            r"lengths must be whole numbers of shape \(2,\), .*, got torch.int64 of shape \(1,\)",
        ),
        (torch.zeros(2, 5, 3), torch.tensor([5.0, 2.0]), ValueError, "lengths must be whole .* torch.float32"),
        (torch.zeros(2, 5, 3), torch.tensor([True, True]), ValueError, "lengths must be whole .* torch.bool"),
        (
            torch.zeros(2, 5, 3),
            torch.tensor([5, 0]),
            ValueError,
            "lengths must be from 1 to seq_len = 5, got 0 to 5",
        ),
        (
            torch.zeros(2, 5, 3),
            torch.tensor([6, 1]),
            ValueError,
            "lengths must be from 1 to seq_len = 5, got 1 to 6",
        ),
        (torch.zeros(0, 5, 3), torch.tensor([1]), ValueError, r"lengths must be whole numbers of shape \(0,\)"),
    ],
)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_bad_input_is_named(make, x, lengths, error, message):
    with pytest.raises(error, match=message):
        make()(x, lengths)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8])
@pytest.mark.parametrize("lengths", [[5, 3, 1], [1, 5, 3], [2, 2, 2], [5, 5, 5]])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_lengths_of_any_order_and_dtype(make, lengths, dtype):
    model, x = make(), torch.randn(3, 5, 3)
    lengths = torch.tensor(lengths, dtype=dtype)
    before, said = lengths.clone(), model(x, lengths)
    for one, x_one, length in zip(said, x, lengths.tolist(), strict=True):
        alone = model(x_one[None, :length])[0]
        torch.testing.assert_close(one if one.dim() == 1 else one[:length], alone)
    assert torch.equal(lengths, before)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("with_lengths", [False, True])
def test_an_empty_batch(make, with_lengths):
    model, x = make(), torch.ones(0, 5, 3, requires_grad=True)
    out = model(x, torch.ones(0, dtype=torch.long) if with_lengths else None)
    assert out.shape == (0, *model(torch.ones(2, 5, 3)).shape[1:])
    out.sum().backward()
    assert x.grad.shape == x.shape
    assert all((p.grad == 0).all() for p in model.parameters())


def test_lengths_may_be_on_another_device():
    x, lengths = torch.ones(2, 5, 3, device="meta"), torch.tensor([2, 5])
    assert LSTMModel(3, 4).to("meta")(x, lengths).shape == (2, 1)
    if torch.cuda.is_available():
        for make in MODELS.values():
            model, x = make().cuda(), torch.randn(2, 5, 3, device="cuda")
            torch.testing.assert_close(model(x, lengths.cuda()), model(x, lengths))


@pytest.mark.filterwarnings("ignore:TF32")
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_lengths_do_not_change_the_dtype_under_autocast(make):
    model, x = make(), torch.randn(2, 5, 3)
    # oneDNN has no LSTM in half precision on some processors; PyTorch's own kernel has.
    with torch.backends.mkldnn.flags(enabled=False), torch.autocast("cpu", torch.bfloat16):
        assert model(x, torch.tensor([2, 5])).dtype == model(x).dtype


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LSTMModel(3, 4, output_size=0), ValueError, "output_size must be at least 1, got 0"),
        (lambda: LSTMModel(3, 4, output_size=1.5), TypeError, "output_size must be an int, got 1.5"),
        (lambda: AcousticModel(3, 4, 0), ValueError, "num_classes must be at least 1, got 0"),
        (lambda: AcousticModel(3, 4, 5, blank=5), ValueError, "blank must be a class from 0 to 4, got 5"),
        (lambda: AcousticModel(3, 4, 5, blank=-1), ValueError, "blank must be at least 0, got -1"),
        (lambda: AcousticModel(3, 4, 5, blank=1.0), TypeError, "blank must be an int, got 1.0"),
    ],
)
def test_bad_options_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_it_learns_from_padded_sequences():
    """The sum of a sequence; padding full of noise must not matter."""
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(200, 6, 1, generator=draw)
    lengths = torch.randint(1, 7, (200,), generator=draw)
    valid = torch.arange(6) < lengths[:, None]
    y = (x.squeeze(2) * valid).sum(1, keepdim=True)
    torch.manual_seed(0)
    model = LSTMModel(1, 16)
    fit(model, ((x[:150], lengths[:150]), y[:150]), steps=300, loss=mse_loss, lr=0.02)
    error = mse_loss(predict(model, (x[150:], lengths[150:])), y[150:])
    assert error < 0.02 * y.var()


def by_hand(model, x, connection):
    """`DeepLSTM` out of PyTorch's own layers, with the model's weights."""
    for k, ours in enumerate(model.lstms):
        layer = nn.LSTM(x.shape[-1], ours.hidden_size, batch_first=True).double()
        layer.load_state_dict(ours.state_dict())
        h = layer(x)[0]
        wide = x.shape == h.shape
        if connection == "dense":
            x = torch.cat((x, h), dim=2)
        elif connection == "residual" and wide:
            x = h + x
        elif connection == "highway" and wide:
            gate = model.gates[str(k)]
            r = 1 / (1 + torch.exp(-(x @ gate.weight.T + gate.bias)))
            x = r * h + (1 - r) * x
        else:
            x = h
    return x


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, st.integers(1, 4), sizes, sizes, st.sampled_from([None, "residual", "highway", "dense"]))
def test_deep_is_pytorchs_layers_by_hand(input_size, hidden_size, num_layers, batch, seq_len, connection):
    model = DeepLSTM(input_size, hidden_size, num_layers, connection=connection).double()
    x = torch.randn(batch, seq_len, input_size, dtype=torch.float64)
    out = model(x)
    torch.testing.assert_close(out, by_hand(model, x, connection), rtol=1e-12, atol=1e-12)

    head = DeepLSTM(input_size, hidden_size, num_layers, 3, connection).double()
    head.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(head(x), head.fc(out[:, -1]), rtol=1e-12, atol=1e-12)


class ArticleDeep(nn.Module):
    """The deep model as the article prints it."""

    def __init__(self, input_size, hidden_size, num_layers):
        super().__init__()
        self.lstms = nn.ModuleList(
            [
                nn.LSTM(hidden_size if i > 0 else input_size, hidden_size, batch_first=True)
                for i in range(num_layers)
            ]
        )

    def forward(self, x):
        for lstm in self.lstms:
            x, _ = lstm(x)
        return x


@pytest.mark.parametrize("connection", [None, "residual"])
def test_weights_of_the_articles_deep_model_load(connection):
    article, x = ArticleDeep(3, 4, 3), torch.randn(2, 5, 3)
    model = DeepLSTM(3, 4, 3, connection=connection)
    model.load_state_dict(article.state_dict(), strict=True)
    assert torch.equal(model(x), article(x)) == (connection is None)


def test_residual_is_that_of_the_layer():
    deep, x = DeepLSTM(4, 4, 3, connection="residual"), torch.randn(2, 6, 4)
    layer = LSTM(4, 4, 3, batch_first=True, residual=True)
    layer.load_state_dict(
        {
            name.replace("_l0", f"_l{k}"): weight
            for k, lstm in enumerate(deep.lstms)
            for name, weight in lstm.state_dict().items()
        }
    )
    torch.testing.assert_close(deep(x), layer(x)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("bias", "like"), [(50.0, None), (-50.0, "x"), (0.0, "half")])
def test_a_highway_open_closed_and_half_open(bias, like):
    model, x = DeepLSTM(4, 4, 2, connection="highway").double(), torch.randn(2, 5, 4, dtype=torch.float64)
    for gate in model.gates.values():
        nn.init.zeros_(gate.weight)
        nn.init.constant_(gate.bias, bias)
    plain = DeepLSTM(4, 4, 2).double()
    plain.load_state_dict({name: w for name, w in model.state_dict().items() if name.startswith("lstms")})
    wanted = plain(x) if like is None else x
    if like == "half":
        wanted = (x + plain.lstms[0](x)[0]) / 2
        wanted = (wanted + plain.lstms[1](wanted)[0]) / 2
    torch.testing.assert_close(model(x), wanted, rtol=1e-12, atol=1e-12)


def test_a_highway_starts_mostly_closed_and_only_where_widths_match():
    model = DeepLSTM(3, 4, 3, connection="highway")
    assert list(model.gates) == ["1", "2"]
    for gate in model.gates.values():
        assert torch.equal(gate.bias, torch.full((4,), -1.0))


@pytest.mark.parametrize(
    ("connection", "count"),
    [
        # by hand, I = 3, H = 4: an LSTM on n inputs has 4·4·(n + 4 + 2); a gate has 4·5
        (None, 144 + 160 + 160),
        ("residual", 464),
        ("highway", 464 + 2 * 20),
        ("dense", 144 + 208 + 272),
    ],
)
def test_size_of_the_deep_model(connection, count):
    assert sum(p.numel() for p in DeepLSTM(3, 4, 3, connection=connection).parameters()) == count


@pytest.mark.parametrize("connection", [None, "residual", "highway", "dense"])
def test_deep_replicas_train_as_they_do_alone(connection):
    x, y = torch.randn(8, 5, 3), torch.randn(8, 1)
    options = {"steps": 3, "loss": mse_loss, "lr": 0.01, "progress": False, "device": "cpu"}
    together = fit(lambda: DeepLSTM(3, 4, 3, 1, connection), (x, y), seeds=[5, 6], **options)
    torch.manual_seed(6)
    alone = DeepLSTM(3, 4, 3, 1, connection)
    fit(alone, (x, y), seed=6, **options)
    for ours, theirs in zip(together[1][0].parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"connection": "skip"}, "connection must be None, 'residual', 'highway' or 'dense', got 'skip'"),
        ({"num_layers": 0}, r"num_layers must be at least 1, got 0"),
        ({"output_size": 0}, "output_size must be at least 1, got 0"),
        ({"output_size": True}, "output_size must be an int, got True"),
        ({"hidden_size": 2.0}, "hidden_size must be an int, got 2.0"),
    ],
)
def test_bad_deep_options_are_named(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        DeepLSTM(**({"input_size": 3, "hidden_size": 4, "num_layers": 2} | options))


def test_a_deep_model_wants_a_batch():
    with pytest.raises(ValueError, match=r"x must be \(batch, seq_len, 3\), .*, got \(5, 3\)"):
        DeepLSTM(3, 4, 2)(torch.zeros(5, 3))
    assert DeepLSTM(3, 4, 2, 1)(torch.zeros(0, 5, 3)).shape == (0, 1)


@settings(deadline=None, max_examples=20)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    bidirectional=st.booleans(),
    num_layers=st.integers(1, 2),
    blank=st.integers(0, 4),
)
def test_acoustic_model_reads_each_sequence_as_if_alone_then_says_blank(lengths, bidirectional, num_layers, blank):
    model = AcousticModel(3, 4, 5, num_layers, bidirectional=bidirectional, blank=blank).double()
    x = torch.randn(len(lengths), 7, 3, dtype=torch.float64)
    said = model(x, torch.tensor(lengths))
    assert said.shape == (len(lengths), 7, 5)
    torch.testing.assert_close(model(x), model(x, torch.full((len(lengths),), 7)), rtol=1e-10, atol=1e-10)
    for one, x_one, length in zip(said, x, lengths, strict=True):
        h, _ = model.lstm(x_one[None, :length])
        torch.testing.assert_close(one[:length], model.fc(h)[0].log_softmax(-1), rtol=1e-10, atol=1e-10)
        assert (one[length:].exp() == torch.eye(5, dtype=torch.float64)[blank]).all()


def test_ctc_needs_no_lengths_behind_the_acoustic_model():
    model, x, lengths = AcousticModel(3, 4, 5).double(), torch.randn(3, 9, 3, dtype=torch.float64), [9, 5, 6]
    y, y_lengths = torch.tensor([[1, 2, 2], [3, 1, 0], [4, 4, 0]]), torch.tensor([3, 2, 2])
    grads = []
    for frames in ([9, 9, 9], lengths):
        log_probs = model(x, torch.tensor(lengths)).transpose(0, 1)
        loss = ctc_loss(log_probs, y, torch.tensor(frames), y_lengths)
        grads.append((loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
