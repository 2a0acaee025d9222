"""Metrics, in percent. Each score carries a signature that says how it was computed.

Everything works offline: no nltk data, no `evaluate.load` from the hub. Scorers are imported inside
the functions because importing them takes seconds, and tasks need this package to check their data.
"""

from unipeft_run.evaluation.metrics.classification import accuracy
from unipeft_run.evaluation.metrics.scores import Scores, mean
from unipeft_run.evaluation.metrics.summaries import rouge, split_sentences
from unipeft_run.evaluation.metrics.translation import bleu

__all__ = ["Scores", "accuracy", "bleu", "mean", "rouge", "split_sentences"]
