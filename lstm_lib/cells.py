"""The equations: one readable ``step`` per recurrent unit, each formula beside the line that computes it.

A cell knows its equations and nothing else. It holds no weights and no state, so one instance serves any number
of layers; :func:`lstm_lib.unroll.run` takes it over time, layers and directions. A new unit is one more class
here: it names its gates, its states and its parameters, and says what happens in one step.

Notation: σ is the logistic function, ⊙ the elementwise product, and ``x`` in a ``step`` is the input as the
weights have already seen it, W_ih x_t + b_ih, because that part is computed for all steps in one product.
"""

from collections.abc import Callable, Iterable
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from lstm_lib.checks import check_variant

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
            For example ``w.weight_hh`` is ``layer.weight_hh_l0``. The tensors are the layer's own, not copies; one
            that a hook makes before each call, as pruning does, is made anew.
        """
        suffix = f"_l{k}_reverse" if reverse else f"_l{k}"
        made = _made_by_hooks(layer)
        return SimpleNamespace(
            **{
                name: made[name + suffix](layer) if name + suffix in made else getattr(layer, name + suffix, None)
                for name in self.parameters
            }
        )

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

    def drop_input(self, x: Tensor, training: bool) -> Tensor:
        """What a layer reads of its input (seq_len, batch, input_size): all of it, unless the unit drops some."""
        return x

    def masks(self, x: Tensor, hidden_size: int, training: bool, proj_size: int = 0) -> dict[str, Tensor]:
        """What chance decides for one sweep over ``x`` (seq_len, batch, input_size): nothing, in most units.

        Returns
        -------
        dict of str to Tensor
            Each (seq_len, batch, size); :meth:`step` gets one step of each by its name.
        """
        return {}

    def step(self, x: Tensor, state: State, w: SimpleNamespace, **masks: Tensor) -> tuple[State, State]:
        """One step in time.

        Parameters
        ----------
        x : Tensor
            This step's part of :meth:`project`, (batch, blocks × hidden_size).
        state : tuple of Tensor
            The state before the step, in the order of ``states``, each (batch, size).
        w : types.SimpleNamespace
            From :meth:`weights`.
        **masks : Tensor
            This step's part of :meth:`masks`, each (batch, size).

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

    def step(self, x: Tensor, state: State, w: SimpleNamespace, **masks: Tensor) -> tuple[State, State]:
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

    def step(self, x: Tensor, state: State, w: SimpleNamespace, **masks: Tensor) -> tuple[State, State]:
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


class LSTMVariant(LSTM):
    """The LSTM's relatives in one general step: peepholes, tied or missing gates, layer norm, zoneout, dropout.

    All options off, it is the LSTM. The stacked weights keep all four blocks in every variant, so that weights
    pass between variants; a block (or peephole) whose gate is tied or gone is there and not read.

    Parameters
    ----------
    peephole : bool
        The gates see the cell: i and f see c_{t-1}, o sees c_t. Gers & Schmidhuber 2000.
    coupled : bool
        i = 1 − f: what is written takes the place of what is forgotten. Greff et al. 2017 (CIFG).
    layer_norm : bool
        Layer norm of W_ih x, of W_hh h (each over all four blocks at once) and of the c that is shown. Ba, Kiros &
        Hinton 2016, equations 20 to 22.
    zoneout : tuple of float
        (p_h, p_c): each unit of h and of c keeps its last value with this probability in training, and is the mean
        of both values in evaluation. Krueger et al. 2017.
    variational_dropout : float
        Probability of dropout on the layer's input and on h as the gates see it, with one mask for all steps of a
        sequence, in training. Gal & Ghahramani 2016.
    without : set of str
        Gates held at 1, ``"input"``, ``"forget"`` and ``"output"``, and tanh left out, around g
        (``"input_activation"``) and around c (``"output_activation"``). Greff et al. 2017. A gate that is gone is
        not among ``gates``.

    Raises
    ------
    TypeError, ValueError
        If an option has the wrong type or range, or two of them contradict each other.

    Examples
    --------
    >>> LSTMVariant(peephole=True).vectors(64)
    {'weight_ci': 64, 'weight_cf': 64, 'weight_co': 64}
    >>> LSTMVariant(without={"forget"}).gates
    ('i', 'g', 'o')
    """

    def __init__(
        self,
        *,
        peephole: bool = False,
        coupled: bool = False,
        layer_norm: bool = False,
        zoneout: tuple[float, float] = (0.0, 0.0),
        variational_dropout: float = 0.0,
        without: Iterable[str] = (),
    ) -> None:
        self.zoneout, self.without = check_variant(
            peephole, coupled, layer_norm, zoneout, variational_dropout, without
        )
        self.peephole, self.coupled, self.layer_norm = peephole, coupled, layer_norm
        self.variational_dropout = variational_dropout
        gone = {name[0] for name in self.without & {"input", "forget", "output"}}
        self.gates = tuple(gate for gate in "ifgo" if gate not in gone)
        self.parameters = (*LSTM.parameters, *self.vectors(1))

    def options(self) -> dict[str, object]:
        """The options that are on, by name; none of them for a plain LSTM."""
        names = ("peephole", "coupled", "layer_norm", "zoneout", "variational_dropout", "without")
        given = {name: getattr(self, name) for name in names}
        given["without"] = set(self.without)
        return {name: value for name, value in given.items() if value and value != (0, 0)}

    def vectors(self, hidden_size: int) -> dict[str, int]:
        """The parameters that a plain LSTM does not have: their names and lengths."""
        names = {}
        if self.peephole:
            names |= dict.fromkeys(("weight_ci", "weight_cf", "weight_co"), hidden_size)
        if self.layer_norm:
            names |= dict.fromkeys(("weight_ln_ih", "weight_ln_hh"), 4 * hidden_size)
            names |= dict.fromkeys(("weight_ln_c", "bias_ln_c"), hidden_size)
        return names

    def weights(self, layer: nn.Module, k: int = 0, reverse: bool = False) -> SimpleNamespace:
        """Parameters of one layer and direction: see :meth:`Cell.weights`; a missing vector is an error."""
        w = super().weights(layer, k, reverse)
        missing = [name for name in self.vectors(1) if getattr(w, name) is None]
        if missing:
            raise ValueError(f"layer has no {', '.join(missing)}, which this variant reads")
        return w

    def project(self, x: Tensor, w: SimpleNamespace) -> Tensor:
        """See :meth:`Cell.project`; with layer norm, LN(W_ih x_t) and then its gain and bias."""
        return self.normalize(linear(x, w.weight_ih), w) if self.layer_norm else super().project(x, w)

    def normalize(self, product: Tensor, w: SimpleNamespace) -> Tensor:
        """Layer norm of W_ih x_t, as ``project`` has it."""
        return layer_norm(product, w.weight_ln_ih.shape, w.weight_ln_ih, w.bias_ih)

    def drop_input(self, x: Tensor, training: bool) -> Tensor:
        """See :meth:`Cell.drop_input`; with variational dropout, the same features at every step of a sequence."""
        p = self.variational_dropout
        return x * _draw(1 - p, x.shape[1:], x) / (1 - p) if p and training else x

    def masks(self, x: Tensor, hidden_size: int, training: bool, proj_size: int = 0) -> dict[str, Tensor]:
        """What chance decides for one sweep: see :meth:`Cell.masks`.

        Returns
        -------
        dict of str to Tensor
            ``zone_h`` and ``zone_c``, where a unit keeps its value: 1 or 0 in training, the probability in
            evaluation; ``drop_h``, the factor on h: 0 or 1/(1 − p), the same at all steps, in training only. What
            is off is not there.
        """
        masks = {}
        shape_h, shape_c = (*x.shape[:2], proj_size or hidden_size), (*x.shape[:2], hidden_size)
        for name, p, shape in zip(("zone_h", "zone_c"), self.zoneout, (shape_h, shape_c), strict=True):
            if p:
                masks[name] = _draw(p, shape, x) if training else x.new_full((), p).expand(shape)
        if self.variational_dropout and training:
            keep = 1 - self.variational_dropout
            masks["drop_h"] = (_draw(keep, shape_h[1:], x) / keep).expand(shape_h)
        return masks

    def step(self, x: Tensor, state: State, w: SimpleNamespace, **masks: Tensor) -> tuple[State, State]:
        """One step: see :meth:`Cell.step`."""
        last_h, last_c = state
        h = last_h * masks["drop_h"] if "drop_h" in masks else last_h
        if self.layer_norm:
            a = x + layer_norm(linear(h, w.weight_hh), w.weight_ln_hh.shape, w.weight_ln_hh, w.bias_hh)
        else:
            a = x + linear(h, w.weight_hh, w.bias_hh)
        i, f, g, o = a.chunk(4, -1)
        if self.peephole:
            i = i + w.weight_ci * last_c  # i_t = σ(… + w_ci ⊙ c_{t-1})
            f = f + w.weight_cf * last_c  # f_t = σ(… + w_cf ⊙ c_{t-1})
        f = torch.ones_like(f) if "forget" in self.without else torch.sigmoid(f)
        i = torch.ones_like(i) if "input" in self.without else 1 - f if self.coupled else torch.sigmoid(i)
        g = g if "input_activation" in self.without else torch.tanh(g)
        c = f * last_c + i * g  #           c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        if self.peephole:
            o = o + w.weight_co * c  #      o_t = σ(… + w_co ⊙ c_t)
        o = torch.ones_like(o) if "output" in self.without else torch.sigmoid(o)
        s = layer_norm(c, w.weight_ln_c.shape, w.weight_ln_c, w.bias_ln_c) if self.layer_norm else c
        h = o * (s if "output_activation" in self.without else torch.tanh(s))  # h_t = o_t ⊙ tanh(LN(c_t))
        if w.weight_hr is not None:
            h = linear(h, w.weight_hr)
        if "zone_c" in masks:  # after h has seen c: the paper's h_t is made from the new c, kept or not
            c = masks["zone_c"] * last_c + (1 - masks["zone_c"]) * c
        if "zone_h" in masks:
            h = masks["zone_h"] * last_h + (1 - masks["zone_h"]) * h
        gates = {"i": i, "f": f, "g": g, "o": o}
        return (h, c), tuple(gates[name] for name in self.gates)


def _draw(p: float, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Ones with probability ``p``, zeros else. Not ``bernoulli_``: in place, it has no rule under ``vmap``."""
    return (torch.rand(shape, device=like.device) < p).to(like.dtype)


class GRU(Cell):
    """The GRU of ``torch.nn.GRU``: Cho et al. 2014, with the reset gate after the product with W_hn.

    An update gate z of 1 *keeps* the old state here; in some texts it overwrites it, with z and 1 − z swapped.
    """

    blocks = ("r", "z", "n")
    gates = ("r", "z", "n")

    def step(self, x: Tensor, state: State, w: SimpleNamespace, **masks: Tensor) -> tuple[State, State]:
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

    def step(self, x: Tensor, state: State, w: SimpleNamespace, **masks: Tensor) -> tuple[State, State]:
        """One step: see :meth:`Cell.step`."""
        (h,) = state
        a = x + linear(h, w.weight_hh, w.bias_hh)  # W_ih x_t + b_ih + W_hh h_{t-1} + b_hh
        h = self.activation(a)  # h_t = tanh(a_t), or max(0, a_t)
        return (h,), ()


def _made_by_hooks(layer: nn.Module) -> dict[str, Callable[[nn.Module], Tensor]]:
    """How to make the weights that hooks put into ``layer`` before each call, by name."""
    made = {}
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod):
            made[hook._tensor_name] = hook.apply_mask
        elif isinstance(hook, WeightNorm):
            made[hook.name] = hook.compute_weight
        elif isinstance(hook, SpectralNorm):
            made[hook.name] = partial(hook.compute_weight, do_power_iteration=False)
    return made


_BASE = nn.RNNBase  # bound here: a program may put the library's layers in the place of torch.nn's
_OF_MODE = {"LSTM": LSTM(), "GRU": GRU(), "RNN_TANH": RNN("tanh"), "RNN_RELU": RNN("relu")}


def of(layer: nn.RNNBase) -> Cell:
    """The cell whose equations ``layer`` computes.

    Parameters
    ----------
    layer : torch.nn.LSTM, torch.nn.GRU or torch.nn.RNN
        PyTorch's own or the library's; for a variant of the LSTM, its :class:`LSTMVariant`.

    Raises
    ------
    TypeError
        If ``layer`` is something else.

    Examples
    --------
    >>> of(nn.GRU(3, 5)).gates
    ('r', 'z', 'n')
    """
    if not isinstance(layer, _BASE):
        raise TypeError(f"layer must be an LSTM, GRU or RNN, torch.nn's or lstm_lib's; got {type(layer).__name__}")
    return getattr(layer, "_variant", None) or _OF_MODE[layer.mode]
