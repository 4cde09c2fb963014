"""The layers ``LSTM``, ``GRU`` and ``RNN``, and the road that a call takes: kernel, engine or loop.

The three layers are PyTorch's own, kernel included, with errors that say what is wrong. The variants of ``LSTM``
run in the engine, ``fused.sweep``; those that are a plain LSTM with other weights, in the kernel. What neither can
do, such as most transforms of ``torch.func``, runs in ``unroll.loop``.
"""

import copy
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.rnn import PackedSequence

from lstm_lib import cells, fused
from lstm_lib.checks import InputError, autocast_dtype, check_call, check_options
from lstm_lib.unroll import Hidden, Sequence, loop, run, transforms

TORCH = (nn.LSTM, nn.GRU, nn.RNN)
"""PyTorch's own layers. Bound here, for a program may put the library's in the place of ``torch.nn``'s."""


class _Layer:
    """Beside one of PyTorch's layers: chooses the road of a call, and says what is wrong with one that failed.

    What a variant adds has private names, which the constructor of :class:`LSTM` alone sets: a subclass may call
    its own attributes as it likes.
    """

    _variant = None  # the equations, where they are not PyTorch's
    _residual, _weight_drop = False, 0.0

    @property
    def _plain(self) -> bool:
        return self._variant is None and not self._residual and not self._weight_drop

    def forward(self, input: Sequence, hx: Hidden | None = None) -> tuple[Sequence, Hidden]:
        """The layer over a sequence: see PyTorch's layer of the same name.

        Raises
        ------
        InputError
            If ``input`` or ``hx`` does not fit the layer: a ValueError, TypeError and RuntimeError in one.
        """
        if isinstance(input, Proxy):  # a leaf for symbolic tracing, as PyTorch's layers are
            arguments = (input,) if hx is None else (input, hx)
            return input.tracer.create_proxy("call_module", input.tracer.path_of_module(self), arguments, {})
        levels = transforms()
        if self._plain and not {"Vmap", "Jvp"} & set(levels):
            if hx is not None and isinstance(input, Tensor | PackedSequence):
                # The kernel itself lets some wrong states pass, and some crash it.
                check_call(cells.of(self), self, input, hx, weight=input.data)
                hx = tuple(hx) if isinstance(self, TORCH[0]) else hx
            try:
                return super().forward(input, hx)
            except Exception:  # whatever it was: either we can name what does not fit, or it goes on as it is
                try:
                    check_call(cells.of(self), self, input, hx)
                except InputError as fault:
                    raise fault from None
                raise
        # The engine does not project, takes no transform but one vmap, and is no operation to trace or to export.
        recorded = torch.compiler.is_exporting() or torch.jit.is_tracing()
        slow = self.proj_size or recorded or levels not in ([], ["Vmap"])
        cell, usual = cells.of(self), isinstance(input, Tensor) and autocast_dtype(input) is None
        kernel = usual and not levels and not torch.compiler.is_compiling() and _is_plain(cell, self.training)
        sweep = loop if slow else _by_kernel if kernel else fused.sweep
        return run(cell, self, input, hx, sweep=sweep, keep_gates=False)[:2]

    def _as_torch(self) -> nn.RNNBase:
        """PyTorch's own layer on the same parameters."""
        if not self._plain:
            raise TypeError(f"layer must have plain options, which alone PyTorch's own layer has; got {self}")
        if is_parametrized(self):
            raise TypeError(
                f"layer must have no parametrization (remove_parametrizations bakes it in), got {self}"
            )
        plain = copy.copy(self)
        plain.__class__ = next(base for base in TORCH if isinstance(self, base))
        return plain

    def __prepare_scriptable__(self) -> nn.RNNBase:
        return self._as_torch()  # TorchScript cannot compile super().forward


def _is_plain(cell: cells.LSTM, training: bool) -> bool:
    """Whether the unit is a plain LSTM with other weights: coupled, without gates, or with dropout that is off."""
    rest = getattr(cell, "without", frozenset()) & {"input_activation", "output_activation"}
    options = () if type(cell) is cells.LSTM else cell.options().keys() - {"coupled", "without"}
    return not rest and not set(options) - (set() if training else {"variational_dropout"})


def _by_kernel(
    cell: cells.LSTM,
    w: SimpleNamespace,
    x: Tensor,
    state: cells.State,
    masks: dict[str, Tensor],
    keep_gates: bool,
) -> dict[str, Tensor]:
    """As :func:`fused.sweep`, by PyTorch's kernel, which gives of c the last one only.

    1 − σ(a) = σ(−a): a coupled LSTM is a plain one with W_i = −W_f, b_i = −b_f. One without a gate has W = 0 for
    it, and a bias from which on σ is 1.
    """
    gone, coupled = getattr(cell, "without", ()), getattr(cell, "coupled", False)
    usual = type(x) is Tensor and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    if not usual or (gone and not all(s.isfinite().all() for s in (x, state[0]))):
        return fused.sweep(cell, w, x, state, masks, keep_gates)  # no second derivatives elsewhere; 0 × ∞

    def tie(p: Tensor, open_: float) -> Tensor:
        i, f, g, o = p.chunk(4)
        i = -f if coupled else i
        blocks = (("input", i), ("forget", f), ("", g), ("output", o))
        return torch.cat([torch.full_like(block, open_) if name in gone else block for name, block in blocks])

    weights, biases = [w.weight_ih, w.weight_hh], [w.bias_ih, w.bias_hh]
    if gone or coupled:
        if w.bias_ih is None:
            biases = [x.new_zeros(len(w.weight_hh))] * 2
        weights, biases = [tie(p, 0.0) for p in weights], [tie(b, 50.0) for b in biases]
    weights += [b for b in biases if b is not None]
    start = [s.unsqueeze(0) for s in state]
    h, _, c = torch.lstm(x, start, weights, len(weights) > 2, 1, 0.0, torch.is_grad_enabled(), False, False)
    return {"h": h, "c": c}


def plain(model: nn.Module) -> nn.Module:
    """The same model with PyTorch's own layers in the place of the library's, on the same parameters.

    Some tools look at the exact type of a layer, and pass by a subclass in silence: dynamic quantization, counters
    of operations, differential privacy, ``if type(module) == nn.LSTM`` in a function of initialization. Give them
    ``plain(model)``. A subclass of ``torch.jit.ScriptModule`` wants it too; ``torch.jit.script`` does it itself.

    Parameters
    ----------
    model : torch.nn.Module
        A layer, or a model that holds some. It is not changed.

    Returns
    -------
    torch.nn.Module
        It shares parameters and buffers with ``model``: what one learns, the other knows.

    Raises
    ------
    TypeError
        If one of the layers is a variant, which PyTorch does not have.

    Examples
    --------
    >>> model = nn.Sequential(LSTM(3, 5))
    >>> type(plain(model)[0]) is nn.LSTM, plain(model)[0].weight_ih_l0 is model[0].weight_ih_l0
    (True, True)
    """
    if isinstance(model, _Layer):
        return model._as_torch()
    same = copy.copy(model)
    same._modules = {name: module and plain(module) for name, module in model._modules.items()}
    return same


class LSTM(_Layer, nn.LSTM):
    """``torch.nn.LSTM`` with errors that say what is wrong: same arguments, results, ``state_dict`` and speed.

    The options after ``dtype``, by keyword only, turn on a variant: the equations are those of
    :class:`lstm_lib.cells.LSTMVariant`, computed by :mod:`lstm_lib.fused`. They combine; what has no meaning
    together is refused. The stacked weights stay as they are, so a plain LSTM's ``state_dict`` loads
    (``strict=False`` where the variant has parameters of its own, which start neutral or as PyTorch's do).

    Parameters
    ----------
    input_size : int
        Features of the input.
    hidden_size : int
        Units: width of c, and of h unless it is projected.
    num_layers : int
        Layers stacked on one another.
    bias : bool
        Whether the gates have biases, ``bias_ih`` and ``bias_hh``, which add.
    batch_first : bool
        Whether input and output are (batch, seq_len, features) instead of (seq_len, batch, features). The states
        h_0, c_0, h_n and c_n never are.
    dropout : float
        Probability of dropout on the outputs of each layer but the last, in training.
    bidirectional : bool
        Whether a second set of units reads each sequence from its end; the output holds both, side by side.
    proj_size : int
        Width that h is projected to, 0 for none.
    device, dtype : optional
        Of the parameters.
    peephole : bool
        The gates see the cell, by ``weight_ci_l{k}``, ``weight_cf_l{k}`` and ``weight_co_l{k}`` (and
        ``…_reverse``), each (hidden_size,). Gers & Schmidhuber 2000.
    coupled : bool
        i = 1 − f. Greff et al. 2017.
    layer_norm : bool
        Layer norm on the sums in the gates and on c, by ``weight_ln_ih_l{k}``, ``weight_ln_hh_l{k}``
        (4 × hidden_size,), ``weight_ln_c_l{k}`` and ``bias_ln_c_l{k}`` (hidden_size,); gains start at 1, the bias
        at 0. Ba, Kiros & Hinton 2016.
    zoneout : tuple of float
        (p_h, p_c), the probabilities that a unit of h and of c keeps its last value. Krueger et al. 2017.
    variational_dropout : float
        Probability of dropout on each layer's input and on h in its gates, with one mask per sequence. Gal &
        Ghahramani 2016.
    weight_drop : float
        Probability of dropout on the entries of ``weight_hh``, drawn once per call. Merity, Keskar & Socher 2018.
    without : set of str
        What to leave out, of ``"input"``, ``"forget"``, ``"output"``, ``"input_activation"`` and
        ``"output_activation"``. Greff et al. 2017.
    residual : bool
        Adds each layer's input, as it is before dropout, to its output where both have the same width (directions
        included); elsewhere nothing is added. The states, h_n among them, stay those of the units. He et al. 2016.

    Raises
    ------
    TypeError, ValueError
        From the constructor if an option has the wrong type or range, or two contradict each other; from a call if
        ``input`` or ``hx`` does not fit the layer. The message names the argument, what it must be and what came.

    Notes
    -----
    Plain options run PyTorch's kernel, and what works with PyTorch's layer works here. So do ``coupled``, a gate
    left out, ``weight_drop`` and ``residual``. Other variants run the engine of :mod:`lstm_lib.fused`, which on a
    CPU is compiled: that takes some seconds, once on a machine. Where a graph of its gradient is asked for, under
    most transforms of ``torch.func``, and where a program is traced or exported, a variant takes the readable
    loop, which is slower and gives the same numbers. Derivatives of any order are exact but the third through
    ``layer_norm``, which PyTorch (2.13) gets wrong.

    ``torch.export`` keeps the batch dynamic and fixes the number of steps, for PyTorch's own layers too. The older
    ONNX export (``dynamo=False``) keeps both for plain options, and the batch for a variant. Tools that look at
    the exact type of a layer want :func:`plain`.

    Examples
    --------
    >>> layer = LSTM(3, 5, num_layers=2, batch_first=True)
    >>> out, (h_n, c_n) = layer(torch.randn(4, 7, 3))
    >>> out.shape, h_n.shape
    (torch.Size([4, 7, 5]), torch.Size([2, 4, 5]))
    >>> layer(torch.randn(4, 7, 2))
    Traceback (most recent call last):
    lstm_lib.checks.InputError: input must be (batch, seq_len, 3), unbatched (seq_len, 3) or packed; got ...
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        peephole: bool = False,
        coupled: bool = False,
        layer_norm: bool = False,
        zoneout: tuple[float, float] = (0.0, 0.0),
        variational_dropout: float = 0.0,
        weight_drop: float = 0.0,
        without: Iterable[str] = (),
        residual: bool = False,
    ) -> None:
        options = check_options(locals())
        weight_drop, residual = options.pop("weight_drop"), options.pop("residual")
        names = ("peephole", "coupled", "layer_norm", "zoneout", "variational_dropout", "without")
        variant = cells.LSTMVariant(**{name: options.pop(name) for name in names})
        super().__init__(**options)
        self._weight_drop, self._residual = weight_drop, residual
        if not variant.options():
            return
        if self.weight_ih_l0.is_complex():
            raise ValueError(f"dtype must be real for a variant, got {self.weight_ih_l0.dtype}")
        self._variant = variant
        for k in range(num_layers):
            for suffix in (f"_l{k}", f"_l{k}_reverse") if bidirectional else (f"_l{k}",):
                for name, size in variant.vectors(hidden_size).items():
                    vector = nn.Parameter(torch.empty(size, device=device, dtype=dtype))
                    self.register_parameter(name + suffix, vector)
                    self._start(name, vector)

    def _start(self, name: str, vector: Tensor) -> None:
        if name.startswith("weight_ln"):
            nn.init.ones_(vector)
        elif name.startswith("bias_ln"):
            nn.init.zeros_(vector)
        else:
            nn.init.uniform_(vector, -(self.hidden_size**-0.5), self.hidden_size**-0.5)

    def reset_parameters(self) -> None:
        """Start anew: all uniform within ±1/√hidden_size, as PyTorch does; layer norm neutral."""
        super().reset_parameters()
        for name, value in self.named_parameters():
            if "_ln_" in name:
                self._start(name, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what was pickled; before their names were private, the options of a variant had public ones."""
        if "_residual" not in state and "residual" in state:
            options = ("variant", "residual", "weight_drop")
            state = {"_" + name if name in options else name: value for name, value in state.items()}
        super().__setstate__(state)

    def extra_repr(self) -> str:
        """PyTorch's, and the options of the variant."""
        options = self._variant.options() if self._variant is not None else {}
        also = {"weight_drop": self._weight_drop, "residual": self._residual}
        options |= {name: value for name, value in also.items() if value}
        shown = {name: repr(value) for name, value in options.items()}
        if "without" in options:  # a set has no order of its own
            shown["without"] = f"{{{', '.join(map(repr, sorted(options['without'])))}}}"
        return ", ".join([super().extra_repr(), *(f"{name}={value}" for name, value in shown.items())])


class GRU(_Layer, nn.GRU):
    """``torch.nn.GRU`` with errors that say what is wrong: same arguments, results, ``state_dict`` and speed.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype
        As for :class:`LSTM`. The state is h alone.
    proj_size : int
        0: it has this place among PyTorch's arguments, but no projection.

    Raises
    ------
    TypeError, ValueError
        As for :class:`LSTM`.

    Examples
    --------
    >>> out, h_n = GRU(3, 5, bidirectional=True)(torch.randn(7, 4, 3))
    >>> out.shape, h_n.shape
    (torch.Size([7, 4, 10]), torch.Size([2, 4, 5]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(**_unprojected(check_options(locals())))


class RNN(_Layer, nn.RNN):
    """``torch.nn.RNN`` with errors that say what is wrong: same arguments, results, ``state_dict`` and speed.

    Parameters
    ----------
    nonlinearity : {"tanh", "relu"}
        The unit's function.
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype
        As for :class:`LSTM`. The state is h alone.
    proj_size : int
        0: it has this place among PyTorch's arguments, but no projection.

    Raises
    ------
    TypeError, ValueError
        As for :class:`LSTM`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(**_unprojected(check_options(locals())))


def _unprojected(options: dict[str, Any]) -> dict[str, Any]:
    if options.pop("proj_size"):
        raise ValueError("proj_size must be 0 for a GRU or an RNN, for only the LSTM projects; got another number")
    return options
