"""Reports on evaluations: tables, plots, and a page of pictures.

`python -m training.report` is the command. It reads what `python -m training.evaluate` wrote.
"""

from training.reporting.measured import Method, Row, Section, Setting
from training.reporting.reading import read_sections

__all__ = ["Method", "Row", "Section", "Setting", "read_sections"]
