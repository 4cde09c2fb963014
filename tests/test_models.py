"""`models` against the article's own code, and each sequence of a padded batch against itself alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import mse_loss

from lstm_lib.models import LSTMModel
from lstm_lib.training import fit, predict


class Article(nn.Module):
    """The model as the article prints it."""

    def __init__(self, input_size, hidden_size, num_layers):
        super().__init__()
        self.lstm = nn.LSTM(
            input_size=input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            batch_first=True
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
    alone = torch.cat([model(x[b:b + 1, :n]) for b, n in enumerate(lengths)])
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
        Article(3, 4, 1).double()(x)      # the article's h0 is float32


def test_dropout_acts_between_layers_only():
    x = torch.randn(2, 5, 3)
    model = LSTMModel(3, 4, num_layers=2, dropout=0.5)
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))
    with pytest.warns(UserWarning, match="num_layers greater than 1"):
        model = LSTMModel(3, 4, dropout=0.5)
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize(("shape", "lengths", "message"), [
    ((5, 3), None, r"x: got shape \(5, 3\), need \(batch, seq_len, input_size\)"),
    ((2, 5, 3), torch.tensor([5]), r"lengths: got torch.int64 of shape \(1,\), need whole numbers of .* \(2,\)"),
    ((2, 5, 3), torch.tensor([5.0, 2.0]), "lengths: got torch.float32"),
    ((2, 5, 3), torch.tensor([5, 0]), "lengths: got 0 to 5, need 1 to seq_len=5"),
    ((2, 5, 3), torch.tensor([6, 1]), "lengths: got 1 to 6, need 1 to seq_len=5"),
])
def test_bad_input_is_named(shape, lengths, message):
    with pytest.raises(ValueError, match=message):
        LSTMModel(3, 4)(torch.zeros(shape), lengths)


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
