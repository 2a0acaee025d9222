"""The library behind `import unipeft`: named deltas on a transformers model.

`choices.py` turns a method's name or axes into slots, `attach.py` attaches them, `store.py` keeps
every named delta of a model, `switch.py` activates them, `combine.py` decides which can be active
together, `files.py` saves and loads one, `schedule.py` holds AdaLoRA's parts for a training loop,
`summary.py` makes the table that `print(attached)` shows.
"""
