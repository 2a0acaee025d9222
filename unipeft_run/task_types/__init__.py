"""Types of tasks: how examples become batches, a loss, and predictions.

`base.py` holds the interface, and `registry.py` finds the type of a task by its `kind`. The other
modules define one type each. Tasks know no models, and models no tasks; this package joins them.
"""
