"""The models of the book's chapters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from lstm_lib.checks import check_options, whole
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

    Raises
    ------
    TypeError, ValueError
        If an option has the wrong type or range.

    Examples
    --------
    >>> import torch
    >>> model = LSTMModel(input_size=3, hidden_size=16, num_layers=2)
    >>> model(torch.randn(8, 24, 3)).shape
    torch.Size([8, 1])
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, output_size: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        whole("output_size", output_size)
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
        TypeError, ValueError
            If ``x`` does not fit the model, or ``lengths`` do not fit ``x``.
        """
        _check(x, self.lstm.input_size, lengths)
        if lengths is not None and len(x):  # PyTorch packs no empty batch
            x = _pack(x, lengths)
        _, (h_n, _) = self.lstm(x)  # h_n: (num_layers, batch, hidden_size), each sequence at its own last step
        return self.fc(h_n[-1])


class DeepLSTM(nn.Module):
    """LSTM layers on one another, and a way past each of them: the article's DeepLSTM, with what it promised.

    The layers' weights are named as in the article, whose model loads into ``connection=None``. Write x for what
    goes into a layer and h for what its units say, at one step; the next layer reads

    - ``None``: h, as the article prints it;
    - ``"residual"``: x + h. He et al. 2016;
    - ``"highway"``: x + r ⊙ (h − x) with r = σ(W x + b), a gate per unit that looks at x alone and is the same map
      at all steps. Srivastava, Greff & Schmidhuber 2015; b starts at −1, so that most of x passes. (The highway
      LSTM of Zhang et al. 2016 joins the cells of two layers instead.)
    - ``"dense"``: [x, h], side by side. Huang et al. 2017.

    Where x is not as wide as h, in the first layer as a rule, residual and highway hand on h.

    Parameters
    ----------
    input_size : int
        Features per step.
    hidden_size : int
        Units per layer.
    num_layers : int
        Layers, one on top of the other.
    output_size : int, optional
        Numbers to predict from what the last layer hands on at the last step. If not given, the model returns what
        it hands on at all steps, as the article's does.
    connection : {None, "residual", "highway", "dense"}
        The way past a layer.

    Raises
    ------
    TypeError, ValueError
        If an option has the wrong type or range.

    Examples
    --------
    >>> import torch
    >>> x = torch.randn(8, 24, 3)
    >>> DeepLSTM(3, 16, num_layers=4, connection="residual")(x).shape
    torch.Size([8, 24, 16])
    >>> DeepLSTM(3, 16, num_layers=4, output_size=1, connection="dense")(x).shape
    torch.Size([8, 1])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        output_size: int | None = None,
        connection: str | None = None,
    ) -> None:
        super().__init__()
        check_options({"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers})
        if output_size is not None:
            whole("output_size", output_size)
        if connection not in (None, "residual", "highway", "dense"):
            raise ValueError(f"connection must be None, 'residual', 'highway' or 'dense', got {connection!r}")
        self.connection = connection
        self.lstms = nn.ModuleList()
        self.gates = nn.ModuleDict()  # of a highway, by the number of their layer
        width = input_size
        for k in range(num_layers):
            self.lstms.append(LSTM(width, hidden_size, batch_first=True))
            if connection == "highway" and width == hidden_size:
                self.gates[str(k)] = nn.Linear(width, hidden_size)
                nn.init.constant_(self.gates[str(k)].bias, -1.0)
            width = width + hidden_size if connection == "dense" else hidden_size
        self.fc = None if output_size is None else nn.Linear(width, output_size)

    def forward(self, x: Tensor) -> Tensor:
        """Read the sequences, layer by layer.

        Parameters
        ----------
        x : Tensor
            (batch, seq_len, input_size).

        Returns
        -------
        Tensor
            (batch, output_size); without ``output_size`` (batch, seq_len, hidden_size), or with ``"dense"``
            (batch, seq_len, input_size + num_layers × hidden_size).

        Raises
        ------
        TypeError, ValueError
            If ``x`` does not fit the model.
        """
        _check(x, self.lstms[0].input_size)
        for k, lstm in enumerate(self.lstms):
            h, _ = lstm(x)
            if self.connection == "dense":
                x = torch.cat([x, h], -1)  # [x, h]
            elif self.connection == "residual" and x.shape == h.shape:
                x = x + h  # x + h
            elif str(k) in self.gates:
                x = x + torch.sigmoid(self.gates[str(k)](x)) * (h - x)  # x + r ⊙ (h − x), r = σ(W x + b)
            else:
                x = h
        return x if self.fc is None else self.fc(x[:, -1])


class AcousticModel(nn.Module):
    """Frames of sound in, log-probabilities of the classes at every frame out: an LSTM and a linear map, for CTC.

    Past its end a padded sequence says the blank, with certainty. That adds nothing to any string's probability,
    so a loss or a decoder may run over all frames and needs no lengths.

    Parameters
    ----------
    input_size : int
        Features per frame.
    hidden_size : int
        Units per layer and direction.
    num_classes : int
        Classes, the blank among them.
    num_layers : int
        Layers, one on top of the other.
    dropout : float
        Probability to drop a value on its way from one layer to the next.
    bidirectional : bool
        Whether a second layer reads from the end; the model then waits for the end of the sequence.
    blank : int
        The class of the blank.

    Raises
    ------
    TypeError, ValueError
        If an option has the wrong type or range, or ``blank`` is none of the classes.

    References
    ----------
    A. Graves, S. Fernández, F. Gomez, J. Schmidhuber, "Connectionist temporal classification: labelling
    unsegmented sequence data with recurrent neural networks", ICML 2006.

    Examples
    --------
    >>> import torch
    >>> model = AcousticModel(input_size=13, hidden_size=16, num_classes=11)
    >>> log_probs = model(torch.randn(2, 40, 13), torch.tensor([40, 25]))
    >>> log_probs.shape, log_probs[1, 30].exp().tolist()[:3]
    (torch.Size([2, 40, 11]), [1.0, 0.0, 0.0])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_classes: int,
        num_layers: int = 1,
        dropout: float = 0.0,
        bidirectional: bool = True,
        blank: int = 0,
    ) -> None:
        super().__init__()
        whole("num_classes", num_classes)
        whole("blank", blank, least=0)
        if blank >= num_classes:
            raise ValueError(f"blank must be a class from 0 to {num_classes - 1}, got {blank}")
        self.blank = blank
        self.lstm = LSTM(
            input_size, hidden_size, num_layers, dropout=dropout, batch_first=True, bidirectional=bidirectional
        )
        self.fc = nn.Linear((2 if bidirectional else 1) * hidden_size, num_classes)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Read the sequences, name the classes at every frame.

        Parameters
        ----------
        x : Tensor
            (batch, seq_len, input_size).
        lengths : Tensor, optional
            (batch,), whole numbers from 1 to seq_len; ``x[b, lengths[b]:]`` is padding and makes no difference.

        Returns
        -------
        Tensor
            (batch, seq_len, num_classes), log-probabilities. :func:`torch.nn.functional.ctc_loss` wants time
            first: ``.transpose(0, 1)``.

        Raises
        ------
        TypeError, ValueError
            If ``x`` does not fit the model, or ``lengths`` do not fit ``x``.
        """
        _check(x, self.lstm.input_size, lengths)
        if lengths is None or not len(x):
            return self.fc(self.lstm(x)[0]).log_softmax(-1)
        seq_len = x.shape[1]
        h, _ = pad_packed_sequence(self.lstm(_pack(x, lengths))[0], batch_first=True, total_length=seq_len)
        log_probs = self.fc(h).log_softmax(-1)
        ended = torch.arange(seq_len, device=x.device) >= lengths.to(x.device)[:, None]  # (batch, seq_len)
        silence = log_probs.new_full((self.fc.out_features,), -torch.inf)
        silence[self.blank] = 0.0  # ln 1 for the blank, ln 0 for all others
        return torch.where(ended[..., None], silence, log_probs)


def _pack(x: Tensor, lengths: Tensor) -> PackedSequence:
    return pack_padded_sequence(x, lengths.to("cpu", torch.long), batch_first=True, enforce_sorted=False)


def _check(x: Tensor, input_size: int, lengths: Tensor | None = None) -> None:
    given = {"x": x} if lengths is None else {"x": x, "lengths": lengths}
    for name, t in given.items():
        if not isinstance(t, Tensor):
            raise TypeError(f"{name} must be a Tensor, got {type(t).__name__}")
    if x.dim() != 3 or x.shape[1] == 0 or x.shape[2] != input_size:  # a layer would take one sequence unbatched
        raise ValueError(f"x must be (batch, seq_len, {input_size}), seq_len at least 1, got {tuple(x.shape)}")
    if lengths is None:
        return
    batch, seq_len, _ = x.shape
    if lengths.shape != (batch,) or lengths.dtype == torch.bool or not torch.can_cast(lengths.dtype, torch.long):
        came = f"{lengths.dtype} of shape {tuple(lengths.shape)}"
        raise ValueError(f"lengths must be whole numbers of shape ({batch},), one per sequence, got {came}")
    if batch and not 1 <= lengths.min() <= lengths.max() <= seq_len:
        raise ValueError(f"lengths must be from 1 to seq_len = {seq_len}, got {lengths.min()} to {lengths.max()}")
