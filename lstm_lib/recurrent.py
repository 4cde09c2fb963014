"""Any cell over time: layers, directions, dropout, packed sequences; and the layers ``LSTM``, ``GRU`` and ``RNN``.

:func:`run` is the readable way, a loop over time that shows every gate at every step. The three layers are
PyTorch's own, kernel included, with errors that say what is wrong; the variants of ``LSTM`` run in ``fused.py``.
"""

import copy
import numbers
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from lstm_lib import cells, fused
from lstm_lib.cells import Cell, State

Sequence = Tensor | PackedSequence
Hidden = Tensor | tuple[Tensor, ...]


def run(
    cell: Cell,
    layer: nn.RNNBase,
    x: Sequence,
    hx: Hidden | None = None,
    *,
    training: bool | None = None,
    _sweep: Callable[..., dict[str, Tensor]] | None = None,
    _keep_gates: bool = True,
) -> tuple[Sequence, Hidden, dict[str, Tensor]]:
    """Take a cell over time with a layer's weights, and keep every gate on the way.

    The loop that ``torch.nn.LSTM`` hides: one product projects the inputs of all steps, then each step is one call
    of ``cell.step``. It is differentiable, and slower than PyTorch's kernel.

    Parameters
    ----------
    cell : Cell
        The equations; ``cells.of(layer)`` for the layer's own.
    layer : torch.nn.RNNBase
        Gives the weights and the options: ``num_layers``, ``bidirectional``, ``batch_first``, ``dropout``,
        ``proj_size``, and of the library's LSTM ``weight_drop`` and ``residual``. It is not changed.
    x : Tensor or PackedSequence
        (seq_len, batch, input_size), or (batch, seq_len, input_size) with ``batch_first``; unbatched
        (seq_len, input_size); or packed.
    hx : Tensor or tuple of Tensor, optional
        The initial state as PyTorch takes it, zeros if not given.
    training : bool, optional
        Whether dropout and zoneout draw, as in training; as ``layer.training`` says if not given.

    Returns
    -------
    out : Tensor or PackedSequence
        As ``layer(x, hx)[0]``.
    state : Tensor or tuple of Tensor
        As ``layer(x, hx)[1]``.
    steps : dict of str to Tensor
        Each gate and each state by name, always (num_layers, num_directions, seq_len, batch, size), in the order
        of time and of the given batch for both directions, and zero past the end of a packed sequence.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``hx`` does not fit the layer, or the layer's weights do not fit the cell.

    Examples
    --------
    >>> layer, x = nn.GRU(3, 5, bidirectional=True), torch.randn(7, 2, 3)
    >>> out, h_n, steps = run(cells.GRU(), layer, x)
    >>> torch.allclose(out, layer(x)[0], atol=1e-6), steps["z"].shape
    (True, torch.Size([1, 2, 7, 2, 5]))
    """
    cells.of(layer)  # refuses what is not a recurrent layer
    rows, width = len(layer.weight_hh_l0), cell.width(layer.hidden_size)
    if rows != width:
        raise ValueError(f"cell {type(cell).__name__} needs weights of {width} rows, the layer's have {rows}")
    check(cell, layer, x, hx)
    training = layer.training if training is None else training
    sweep = _sweep or loop
    lengths = None
    if isinstance(x, PackedSequence):
        seq, lengths = pad_packed_sequence(x)  # in the order of the given batch, as hx is
        lengths = lengths.to(seq.device)
        ended = torch.arange(len(seq), device=seq.device)[:, None, None] >= lengths[:, None]
    elif x.dim() == 2:
        seq = x.unsqueeze(1)
    else:
        seq = x.transpose(0, 1) if layer.batch_first else x

    directions = 2 if layer.bidirectional else 1
    if hx is None:
        state = [seq.new_zeros(layer.num_layers * directions, seq.shape[1], size) for size in cell.sizes(layer)]
    else:
        state = [s if s.dim() == 3 else s.unsqueeze(1) for s in ((hx,) if isinstance(hx, Tensor) else hx)]

    sweeps, last = [], []
    for k in range(layer.num_layers):
        below = seq
        if k > 0:
            seq = dropout(seq, layer.dropout, training)
        seq = cell.drop_input(seq, training)
        for d in range(directions):
            w = cell.weights(layer, k, d == 1)
            w.weight_hh = dropout(w.weight_hh, getattr(layer, "weight_drop", 0.0), training)
            start = tuple(s[k * directions + d] for s in state)
            masks = cell.masks(seq, layer.hidden_size, training, layer.proj_size)
            # A sequence that has ended runs on over its padding, which is cheaper than to stop it; nobody looks.
            steps = sweep(cell, w, reverse_time(seq, lengths) if d else seq, start, masks, _keep_gates)
            if lengths is None:
                last.append([steps[name][-1] for name in cell.states])
            else:
                last.append([steps[name][lengths - 1, torch.arange(len(lengths))] for name in cell.states])
                steps = {name: value.masked_fill(ended, 0) for name, value in steps.items()}
            sweeps.append({name: reverse_time(value, lengths) for name, value in steps.items()} if d else steps)
        seq = torch.cat([steps["h"] for steps in sweeps[-directions:]], -1) if directions > 1 else steps["h"]
        if getattr(layer, "residual", False) and seq.shape == below.shape:
            seq = seq + below

    steps = {
        name: _stack([steps[name] for steps in sweeps]).unflatten(0, (layer.num_layers, directions))
        for name in cell.gates + cell.states
        if name in steps
    }
    last = tuple(torch.stack(s) for s in zip(*last, strict=True))
    if isinstance(x, PackedSequence):
        if x.sorted_indices is not None:
            seq, lengths = seq[:, x.sorted_indices], lengths[x.sorted_indices]
        data = pack_padded_sequence(seq, lengths.cpu()).data
        out = PackedSequence(data, x.batch_sizes, x.sorted_indices, x.unsorted_indices)
    elif x.dim() == 2:
        out, last = seq.squeeze(1), tuple(s.squeeze(1) for s in last)
    else:
        out = seq.transpose(0, 1) if layer.batch_first else seq
    return out, last if len(last) > 1 else last[0], steps


def loop(
    cell: Cell, w: SimpleNamespace, x: Tensor, state: State, masks: dict[str, Tensor], keep_gates: bool
) -> dict[str, Tensor]:
    """One layer in one direction over time, the readable way; any cell, projected or not.

    Parameters
    ----------
    cell, w, x, state, masks, keep_gates
        As :func:`lstm_lib.fused.sweep` takes them.

    Returns
    -------
    dict of str to Tensor
        Each state, and each gate if they are kept, by name, (seq_len, batch, size). All carry gradients.
    """
    history = []
    for t, x_t in enumerate(cell.project(x, w)):
        state, gates = cell.step(x_t, state, w, **{name: mask[t] for name, mask in masks.items()})
        history.append(gates + state if keep_gates else state)
    names = cell.gates + cell.states if keep_gates else cell.states
    return {name: torch.stack(values) for name, values in zip(names, zip(*history, strict=True), strict=True)}


def _stack(tensors: list[Tensor]) -> Tensor:
    return torch.stack(tensors) if len(tensors) > 1 else tensors[0].unsqueeze(0)  # one needs no copy


def under_vmap() -> bool:
    """Whether a ``torch.func.vmap`` is at work around this call, at any depth of ``torch.func``'s transforms."""
    if torch.compiler.is_compiling():  # which cannot look into the stack
        return False
    stack = torch._C._functorch.get_interpreter_stack()
    return stack is not None and any(level.key() == torch._C._functorch.TransformType.Vmap for level in stack)


def reverse_time(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Reverse each sequence within its own length; padding stays where it is.

    Parameters
    ----------
    x : Tensor
        (seq_len, batch, …).
    lengths : Tensor, optional
        (batch,), steps of each sequence; all of them if not given.

    Examples
    --------
    >>> reverse_time(torch.tensor([[1, 1], [2, 2], [3, 0]]), torch.tensor([3, 2]))
    tensor([[3, 2],
            [2, 1],
            [1, 0]])
    """
    if lengths is None:
        return x.flip(0)
    t = torch.arange(len(x), device=x.device)[:, None]
    return x[torch.where(t < lengths, lengths - 1 - t, t), torch.arange(x.shape[1], device=x.device)]


def check(cell: Cell, layer: nn.RNNBase, input: Sequence, hx: Hidden | None = None) -> None:
    """Refuse what ``layer`` cannot run on; a few microseconds where all is well.

    Under autocast any floating-point dtype is let through, since autocast converts it.

    Raises
    ------
    TypeError
        If ``input`` is not a Tensor or PackedSequence, or ``hx`` not the Tensor or the tuple that the layer takes.
    ValueError
        If a shape, dtype or device does not fit. The message names the argument, what came and what is needed.
    """
    batch_sizes = None
    if isinstance(input, PackedSequence):
        data, batch_sizes = input.data, input.batch_sizes
        fits = data.dim() == 2
    elif isinstance(input, Tensor):
        data, fits = input, input.dim() == 3 or input.dim() == 2
    else:
        raise TypeError(f"input must be a Tensor or a PackedSequence, got {type(input).__name__}")
    shape = data.shape
    weight = layer.weight_ih_l0
    if not fits or shape[-1] != layer.input_size:
        dims, size = "batch, seq_len" if layer.batch_first else "seq_len, batch", layer.input_size
        came = "shape" if batch_sizes is None else "packed data of shape"
        raise ValueError(
            f"input must be ({dims}, {size}), unbatched (seq_len, {size}) or packed; got {came} {tuple(shape)}"
        )
    batched = len(shape) == 3
    if shape[1 if batched and layer.batch_first else 0] == 0:
        raise ValueError(f"input must have at least one time step, got shape {tuple(shape)}: seq_len is 0")
    if data.device != weight.device:
        raise ValueError(f"input is on {data.device}, the layer is on {weight.device}: they must be on one device")
    if data.dtype != weight.dtype and not _autocasts(data):
        raise ValueError(f"input must be {weight.dtype} as the layer is, got {data.dtype}")
    if hx is None:
        return

    names, sizes = cell.states, cell.sizes(layer)
    if len(names) == 1:
        wanted, states = "a Tensor", (hx,)
    else:
        wanted, states = f"a tuple ({', '.join(n + '_0' for n in names)}) of Tensors", hx
    if (
        not isinstance(states, tuple | list)
        or len(states) != len(names)
        or not all(isinstance(s, Tensor) for s in states)
    ):
        came = type(hx).__name__
        if isinstance(hx, tuple | list):
            came += f" of {len(hx)}: ({', '.join(type(s).__name__ for s in hx)})"
        raise TypeError(f"hx must be {wanted}, got {came}")
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    if batch_sizes is not None:
        batch = (int(batch_sizes[0]),)
    else:
        batch = (shape[0 if layer.batch_first else 1],) if batched else ()
    for name, size, s in zip(names, sizes, states, strict=True):
        if s.shape != (rows, *batch, size):
            dims = "num_layers × num_directions, " + ("batch, " if batch else "") + "size"
            raise ValueError(
                f"hx: {name}_0 must be ({dims}) = {(rows, *batch, size)}, got {tuple(s.shape)}"
                + (" (batch_first does not apply to hx)" if layer.batch_first else "")
            )
        if s.device != data.device:
            raise ValueError(f"hx: {name}_0 is on {s.device}, input on {data.device}: they must be on one device")
        if s.dtype != data.dtype and not _autocasts(s):
            raise ValueError(f"hx: {name}_0 must be {data.dtype} as input is, got {s.dtype}")


def _autocasts(x: Tensor) -> bool:
    return x.is_floating_point() and torch.is_autocast_enabled(x.device.type)


def check_options(arguments: dict[str, Any]) -> dict[str, Any]:
    """A constructor's ``locals()`` as options for PyTorch's constructor; one of wrong type or range is refused."""
    options = {name: value for name, value in arguments.items() if name not in ("self", "__class__")}
    for name, value in options.items():
        came = f"got {value!r} ({type(value).__name__})"
        if name in ("input_size", "hidden_size", "num_layers", "proj_size"):
            least = 0 if name == "proj_size" else 1
            if not isinstance(value, numbers.Integral) or isinstance(value, bool):
                raise TypeError(f"{name} must be an int, {came}")
            if value < least:
                raise ValueError(f"{name} must be at least {least}, {came}")
            if name == "proj_size" and value >= options["hidden_size"]:
                raise ValueError(f"proj_size must be smaller than hidden_size = {options['hidden_size']}, {came}")
        elif name in ("bias", "batch_first", "bidirectional", "residual"):
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False, {came}")
        elif name == "dropout":
            if not isinstance(value, numbers.Real) or isinstance(value, bool):
                raise TypeError(f"dropout must be a number from 0 to 1, {came}")
            if not 0 <= value <= 1:
                raise ValueError(f"dropout must be a number from 0 to 1, {came}")
        elif name == "weight_drop":
            if not isinstance(value, numbers.Real) or isinstance(value, bool):
                raise TypeError(f"weight_drop must be a number from 0 to below 1, {came}")
            if not 0 <= value < 1:
                raise ValueError(f"weight_drop must be a number from 0 to below 1, {came}")
        elif name == "nonlinearity" and value not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity must be 'tanh' or 'relu', {came}")
        elif name == "dtype" and value is not None:
            if not isinstance(value, torch.dtype):
                raise TypeError(f"dtype must be a torch.dtype, {came}")
            if not value.is_floating_point:
                raise ValueError(f"dtype must be a floating-point type, {came}")
    return options


class _Checked:
    """Beside one of PyTorch's layers: looks at the arguments, then hands over to the kernel or to ``fused.py``."""

    variant = None  # the equations, where they are not PyTorch's
    residual, weight_drop = False, 0.0

    def forward(self, input: Sequence, hx: Hidden | None = None) -> tuple[Sequence, Hidden]:
        """The layer over a sequence: see PyTorch's layer of the same name.

        Raises
        ------
        TypeError, ValueError
            If ``input`` or ``hx`` does not fit the layer.
        """
        cell = cells.of(self)
        if self.variant is None and not self.residual and not self.weight_drop and not under_vmap():
            check(cell, self, input, hx)
            return super().forward(input, hx)
        # An export wants operations, not a Function; the fused sweep does not project.
        sweep = loop if torch.compiler.is_exporting() or self.proj_size else fused.sweep
        return run(cell, self, input, hx, _sweep=sweep, _keep_gates=False)[:2]

    def __prepare_scriptable__(self) -> nn.RNNBase:
        if self.variant is not None or self.residual or self.weight_drop:
            raise TypeError(f"TorchScript knows plain layers only, not {self}; torch.export takes this one")
        # TorchScript cannot compile super().forward: it takes this instead, PyTorch's layer on our parameters.
        plain = copy.copy(self)
        plain.__class__ = next(base for base in (nn.LSTM, nn.GRU, nn.RNN) if isinstance(self, base))
        return plain


class LSTM(_Checked, nn.LSTM):
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
        ``input`` or ``hx`` does not fit the layer. The message names the argument, what came and what is needed.

    Examples
    --------
    >>> layer = LSTM(3, 5, num_layers=2, batch_first=True)
    >>> out, (h_n, c_n) = layer(torch.randn(4, 7, 3))
    >>> out.shape, h_n.shape
    (torch.Size([4, 7, 5]), torch.Size([2, 4, 5]))
    >>> layer(torch.randn(4, 7, 2))
    Traceback (most recent call last):
    ValueError: input must be (batch, seq_len, 3), unbatched (seq_len, 3) or packed; got shape (4, 7, 2)
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
        self.weight_drop, self.residual = weight_drop, residual
        if not variant.options():
            return
        self.variant = variant
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

    def extra_repr(self) -> str:
        """PyTorch's, and the options of the variant."""
        options = self.variant.options() if self.variant is not None else {}
        options |= {name: getattr(self, name) for name in ("weight_drop", "residual") if getattr(self, name)}
        shown = {name: repr(value) for name, value in options.items()}
        if "without" in options:  # a set has no order of its own
            shown["without"] = f"{{{', '.join(map(repr, sorted(options['without'])))}}}"
        return ", ".join([super().extra_repr(), *(f"{name}={value}" for name, value in shown.items())])


class GRU(_Checked, nn.GRU):
    """``torch.nn.GRU`` with errors that say what is wrong: same arguments, results, ``state_dict`` and speed.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype
        As for :class:`LSTM`. There is no projection, and the state is h alone.

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
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(**check_options(locals()))


class RNN(_Checked, nn.RNN):
    """``torch.nn.RNN`` with errors that say what is wrong: same arguments, results, ``state_dict`` and speed.

    Parameters
    ----------
    nonlinearity : {"tanh", "relu"}
        The unit's function.
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype
        As for :class:`LSTM`. There is no projection, and the state is h alone.

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
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(**check_options(locals()))
