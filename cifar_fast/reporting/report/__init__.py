"""What a run shows: figures, a self-contained report.html, a model card."""

from cifar_fast.reporting.report.build import errors_folder, rebuild, redraw, renew_model_card, report
from cifar_fast.reporting.report.modelcard import model_card
from cifar_fast.reporting.report.page import page

__all__ = [
    "report", "rebuild",  # everything, of a run that has just ended or of one on disk
    "redraw",  # the figures alone, from the small files in a run's folder
    "errors_folder",  # a folder with all images that were predicted wrongly
    "page", "model_card",  # the HTML and the Markdown
    "renew_model_card",  # the Markdown of a run on disk
]
