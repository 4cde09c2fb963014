"""The library of the book *Long Short-Term Memory, tested*.

The layers stand here; everything else is in the module that is named after it, such as ``lstm_lib.init``, and what
only the book needs in ``lstm_lib.book``. A module is imported when it is first asked for.
"""

import importlib
import pkgutil
from types import ModuleType

from lstm_lib.recurrent import GRU, LSTM, RNN, plain

__all__ = ["GRU", "LSTM", "RNN", "plain"]
__version__ = "0.1.0"

_MODULES = {module.name for module in pkgutil.iter_modules(__path__)}


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return importlib.import_module(f"lstm_lib.{name}")
    raise AttributeError(f"module 'lstm_lib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
