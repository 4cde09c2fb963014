"""nbval with a tolerance for numbers: see README.md, :mod:`.plugin`, :mod:`.compare` and :mod:`.figures`."""
