"""Simulations use the models in bench/, which is not installed. The tree comes last on the path,
so that the packages under test are the installed ones."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
