"""Scores of predictions, in percent, each metric with a signature that says how it was computed.

Nothing here needs a network: no nltk data, no `evaluate.load`. The scorers are imported where they
are used: they take seconds, and a task is made and its data checked without them.
"""

from unipeft_run.evaluation.metrics.classification import accuracy
from unipeft_run.evaluation.metrics.scores import Scores, mean
from unipeft_run.evaluation.metrics.summaries import rouge, split_sentences
from unipeft_run.evaluation.metrics.translation import bleu

__all__ = ["Scores", "accuracy", "bleu", "mean", "rouge", "split_sentences"]
