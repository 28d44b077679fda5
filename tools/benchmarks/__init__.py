"""What `tools/bench.py` measures, a module for each of its commands."""

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as `nmt` has it; torch asks once, while Lightning is imported
