"""The models of the book's chapters."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from lstm_lib.recurrent import LSTM


class LSTMModel(nn.Module):
    """A sequence in, one vector out: an LSTM, and a linear map of its last hidden state.

    The weights are named as in the article that this book tests, and load from its model. Two things differ. The
    initial state is left to the layer, which starts from zeros on the right device and in the right dtype. And
    ``lengths`` say where each sequence of a padded batch ends: ``out[:, -1]`` would read the padding.

    Parameters
    ----------
    input_size : int
        Features per step.
    hidden_size : int
        Units per layer.
    num_layers : int
        Layers, one on top of the other.
    output_size : int
        Numbers to predict.
    dropout : float
        Probability to drop a value on its way from one layer to the next. With one layer there is no such way, and
        PyTorch warns.

    Examples
    --------
    >>> import torch
    >>> model = LSTMModel(input_size=3, hidden_size=16, num_layers=2)
    >>> model(torch.randn(8, 24, 3)).shape
    torch.Size([8, 1])
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, output_size: int = 1,
                 dropout: float = 0.0) -> None:
        super().__init__()
        self.lstm = LSTM(input_size, hidden_size, num_layers, dropout=dropout, batch_first=True)
        self.fc = nn.Linear(hidden_size, output_size)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Read the sequences, predict from the hidden state after the last valid step.

        Parameters
        ----------
        x : Tensor
            (batch, seq_len, input_size).
        lengths : Tensor, optional
            (batch,), whole numbers from 1 to seq_len; ``x[b, lengths[b]:]`` is padding and makes no difference.

        Returns
        -------
        Tensor
            (batch, output_size).

        Raises
        ------
        ValueError
            If ``x`` is not three-dimensional, or ``lengths`` do not fit it.
        """
        if x.dim() != 3:     # the layer would take (seq_len, input_size) for one sequence
            raise ValueError(f"x: got shape {tuple(x.shape)}, need (batch, seq_len, input_size)")
        if lengths is not None:
            _check_lengths(lengths, x)
            x = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (h_n, _) = self.lstm(x)     # h_n: (num_layers, batch, hidden_size), each sequence at its own last step
        return self.fc(h_n[-1])


def _check_lengths(lengths: Tensor, x: Tensor) -> None:
    batch, seq_len, _ = x.shape
    if lengths.shape != (batch,) or lengths.is_floating_point():
        raise ValueError(f"lengths: got {lengths.dtype} of shape {tuple(lengths.shape)}, "
                         f"need whole numbers of shape ({batch},), one per sequence")
    if batch and not 1 <= lengths.min() <= lengths.max() <= seq_len:
        raise ValueError(f"lengths: got {lengths.min()} to {lengths.max()}, need 1 to seq_len={seq_len}")
