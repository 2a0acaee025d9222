"""The design space as modules: h <- compose(h, f(insert(x, h))).

`delta.py` is the sentence, `forms/`, `insertions.py` and `compositions.py` are three of its axes.
The fourth, the modified representation, is a `site`. `attach` puts deltas into a backbone.
"""
