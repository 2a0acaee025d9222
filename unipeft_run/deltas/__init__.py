"""The design space as modules: h <- compose(h, f(insert(x, h))).

`delta.py` is this equation. `forms/`, `insertions.py` and `compositions.py` are three of its axes;
the fourth, the modified representation, is a set of sites
(`backbones/site.py`). `attach.py` puts deltas into
a backbone.
"""
