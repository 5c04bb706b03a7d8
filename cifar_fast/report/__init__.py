"""What a run leaves to be looked at: figures, report.html in one file, a model card."""

from .build import rebuild, redraw, report
from .calibration import calibration_error
from .modelcard import model_card
from .page import page

__all__ = [
    "report", "rebuild",  # everything, of a run that has just ended or of one on disk
    "redraw",  # the figures alone, from the small files that a run leaves
    "page", "model_card",  # the HTML and the Markdown
    "calibration_error",
]
