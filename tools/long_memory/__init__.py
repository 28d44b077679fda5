"""Tasks that need a long memory, and networks that are trained on them; `tools/long_range.py` is the command."""
