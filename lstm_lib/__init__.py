"""The library of the book *Long Short-Term Memory, tested*.

The layers stand here; everything else is in the module that is named after it.
"""

from lstm_lib.recurrent import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN"]
