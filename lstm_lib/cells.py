"""The equations: one readable ``step`` per recurrent unit, each formula beside the line that computes it.

A cell knows its equations and nothing else. It holds no weights and no state, so one instance serves any number
of layers; :func:`lstm_lib.recurrent.run` takes it over time, layers and directions. A new unit is one more class
here: it names its gates, its states and its parameters, and says what happens in one step.

Notation: σ is the logistic function, ⊙ the elementwise product, and ``x`` in a ``step`` is the input as the
weights have already seen it, W_ih x_t + b_ih, because that part is computed for all steps in one product.
"""

from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

State = tuple[Tensor, ...]


class Cell:
    """What every recurrent unit has; a unit is a subclass with its own names and its own :meth:`step`.

    Attributes
    ----------
    blocks : tuple of str
        The blocks stacked in ``weight_ih``, ``weight_hh`` and the biases, in order: ``hidden_size`` rows each.
    gates : tuple of str
        What :meth:`step` returns beside the new state.
    states : tuple of str
        What is carried from step to step; ``"h"``, the output, comes first.
    parameters : tuple of str
        Names of the parameters that the unit reads, without PyTorch's suffix ``_l0``, ``_l0_reverse`` and so on.
    """

    blocks: tuple[str, ...]
    gates: tuple[str, ...]
    states: tuple[str, ...] = ("h",)
    parameters: tuple[str, ...] = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

    def width(self, hidden_size: int) -> int:
        """Rows of the stacked weights: blocks × ``hidden_size``.

        Examples
        --------
        >>> LSTM().width(64), GRU().width(64), RNN().width(64)
        (256, 192, 64)
        """
        return len(self.blocks) * hidden_size

    def rows(self, block: str, hidden_size: int) -> slice:
        """Where one block lies in the stacked weights and biases.

        Examples
        --------
        >>> LSTM().rows("f", 64)
        slice(64, 128, None)
        """
        start = self.blocks.index(block) * hidden_size
        return slice(start, start + hidden_size)

    def sizes(self, layer: nn.RNNBase) -> tuple[int, ...]:
        """Width of each state in ``layer``: ``proj_size`` for h where the layer projects, ``hidden_size`` else."""
        h = layer.proj_size or layer.hidden_size
        return tuple(h if name == "h" else layer.hidden_size for name in self.states)

    def weights(self, layer: nn.Module, k: int = 0, reverse: bool = False) -> SimpleNamespace:
        """Parameters of one layer and direction, by name and without suffix; None for one that is not there.

        Parameters
        ----------
        layer : torch.nn.Module
            A layer whose parameters are named as ``torch.nn.LSTM`` names its own.
        k : int
            Which layer of the stack, from 0.
        reverse : bool
            The backward direction's.

        Returns
        -------
        types.SimpleNamespace
            For example ``w.weight_hh`` is ``layer.weight_hh_l0``. The tensors are the layer's own, not copies.
        """
        suffix = f"_l{k}_reverse" if reverse else f"_l{k}"
        return SimpleNamespace(**{name: getattr(layer, name + suffix, None) for name in self.parameters})

    def project(self, x: Tensor, w: SimpleNamespace) -> Tensor:
        """What the weights make of the input, W_ih x_t + b_ih, for all steps in one product.

        Parameters
        ----------
        x : Tensor
            Input, (…, input_size).
        w : types.SimpleNamespace
            From :meth:`weights`.

        Returns
        -------
        Tensor
            (…, blocks × hidden_size), the ``x`` of :meth:`step`.
        """
        return linear(x, w.weight_ih, w.bias_ih)

    def step(self, x: Tensor, state: State, w: SimpleNamespace) -> tuple[State, State]:
        """One step in time.

        Parameters
        ----------
        x : Tensor
            This step's part of :meth:`project`, (batch, blocks × hidden_size).
        state : tuple of Tensor
            The state before the step, in the order of ``states``, each (batch, size).
        w : types.SimpleNamespace
            From :meth:`weights`.

        Returns
        -------
        state : tuple of Tensor
            The state after the step, in the order of ``states``.
        gates : tuple of Tensor
            In the order of ``gates``, each (batch, hidden_size).
        """
        raise NotImplementedError(f"{type(self).__name__} has no step")


class LSTM(Cell):
    """The LSTM of ``torch.nn.LSTM``: Gers, Schmidhuber & Cummins 2000; projected, Sak, Senior & Beaufays 2014.

    Examples
    --------
    The layer by hand, step by step:

    >>> layer, cell = nn.LSTM(3, 5), LSTM()
    >>> x, w = torch.randn(7, 2, 3), cell.weights(layer)
    >>> state = torch.zeros(2, 5), torch.zeros(2, 5)
    >>> for x_t in cell.project(x, w):
    ...     state, (i, f, g, o) = cell.step(x_t, state, w)
    >>> torch.allclose(state[0], layer(x)[0][-1], atol=1e-6)
    True
    """

    blocks = ("i", "f", "g", "o")
    gates = ("i", "f", "g", "o")
    states = ("h", "c")
    parameters = (*Cell.parameters, "weight_hr")

    def step(self, x: Tensor, state: State, w: SimpleNamespace) -> tuple[State, State]:
        """One step: see :meth:`Cell.step`."""
        h, c = state
        i, f, g, o = (x + linear(h, w.weight_hh, w.bias_hh)).chunk(4, -1)  # W_ih x_t + b_ih + W_hh h_{t-1} + b_hh
        i = torch.sigmoid(i)  # i_t = σ(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)     how much of g to write
        f = torch.sigmoid(f)  # f_t = σ(W_if x_t + b_if + W_hf h_{t-1} + b_hf)     how much of c to keep
        g = torch.tanh(g)  #    g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)  what to write
        o = torch.sigmoid(o)  # o_t = σ(W_io x_t + b_io + W_ho h_{t-1} + b_ho)     how much of c to show
        c = f * c + i * g  #    c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        h = o * torch.tanh(c)  # h_t = o_t ⊙ tanh(c_t)
        if w.weight_hr is not None:
            h = linear(h, w.weight_hr)  # h_t = W_hr (o_t ⊙ tanh(c_t)), with proj_size
        return (h, c), (i, f, g, o)


class LSTM1997(LSTM):
    """The LSTM before it could forget: Hochreiter & Schmidhuber 1997, where the cell only ever adds.

    It runs on an LSTM's own weights and leaves the forget block unread, so the same layer can be run with and
    without its forget gate. (The paper squashes with scaled logistic functions where this uses tanh, and it cuts
    the gradient at the gates; the cell update is the paper's.)
    """

    gates = ("i", "g", "o")

    def step(self, x: Tensor, state: State, w: SimpleNamespace) -> tuple[State, State]:
        """One step: see :meth:`Cell.step`."""
        h, c = state
        i, _, g, o = (x + linear(h, w.weight_hh, w.bias_hh)).chunk(4, -1)  # W_ih x_t + b_ih + W_hh h_{t-1} + b_hh
        i = torch.sigmoid(i)  # i_t = σ(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)
        g = torch.tanh(g)  #    g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
        o = torch.sigmoid(o)  # o_t = σ(W_io x_t + b_io + W_ho h_{t-1} + b_ho)
        c = c + i * g  #        c_t = c_{t-1} + i_t ⊙ g_t
        h = o * torch.tanh(c)  # h_t = o_t ⊙ tanh(c_t)
        if w.weight_hr is not None:
            h = linear(h, w.weight_hr)  # h_t = W_hr (o_t ⊙ tanh(c_t)), with proj_size
        return (h, c), (i, g, o)


class GRU(Cell):
    """The GRU of ``torch.nn.GRU``: Cho et al. 2014, with the reset gate after the product with W_hn.

    An update gate z of 1 *keeps* the old state here; in some texts it overwrites it, with z and 1 − z swapped.
    """

    blocks = ("r", "z", "n")
    gates = ("r", "z", "n")

    def step(self, x: Tensor, state: State, w: SimpleNamespace) -> tuple[State, State]:
        """One step: see :meth:`Cell.step`."""
        (h,) = state
        xr, xz, xn = x.chunk(3, -1)  # W_ih x_t + b_ih
        hr, hz, hn = linear(h, w.weight_hh, w.bias_hh).chunk(3, -1)  # W_hh h_{t-1} + b_hh
        r = torch.sigmoid(xr + hr)  #  r_t = σ(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)  how much of h to consult
        z = torch.sigmoid(xz + hz)  #  z_t = σ(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)  how much of h to keep
        n = torch.tanh(xn + r * hn)  # n_t = tanh(W_in x_t + b_in + r_t ⊙ (W_hn h_{t-1} + b_hn))  what to write
        h = (1 - z) * n + z * h  #     h_t = (1 − z_t) ⊙ n_t + z_t ⊙ h_{t-1}
        return (h,), (r, z, n)


class RNN(Cell):
    """The plain recurrent unit of ``torch.nn.RNN``: Elman 1990. It has no gates.

    Parameters
    ----------
    nonlinearity : {"tanh", "relu"}
        The function around the sum.
    """

    blocks = ("h",)
    gates = ()

    def __init__(self, nonlinearity: str = "tanh") -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        self.activation = torch.tanh if nonlinearity == "tanh" else torch.relu

    def step(self, x: Tensor, state: State, w: SimpleNamespace) -> tuple[State, State]:
        """One step: see :meth:`Cell.step`."""
        (h,) = state
        a = x + linear(h, w.weight_hh, w.bias_hh)  # W_ih x_t + b_ih + W_hh h_{t-1} + b_hh
        h = self.activation(a)  # h_t = tanh(a_t), or max(0, a_t)
        return (h,), ()


_OF_MODE = {"LSTM": LSTM(), "GRU": GRU(), "RNN_TANH": RNN("tanh"), "RNN_RELU": RNN("relu")}


def of(layer: nn.RNNBase) -> Cell:
    """The cell whose equations ``layer`` computes.

    Parameters
    ----------
    layer : torch.nn.LSTM, torch.nn.GRU or torch.nn.RNN
        PyTorch's own or the library's.

    Raises
    ------
    TypeError
        If ``layer`` is something else.

    Examples
    --------
    >>> of(nn.GRU(3, 5)).gates
    ('r', 'z', 'n')
    """
    if not isinstance(layer, nn.RNNBase):
        raise TypeError(f"layer must be an LSTM, GRU or RNN, torch.nn's or lstm_lib's; got {type(layer).__name__}")
    return _OF_MODE[layer.mode]
