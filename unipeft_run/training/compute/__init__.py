"""Compute the forward and backward pass of a micro-batch.

`plan.py` chooses for a run: CUDA graphs or one kernel at a time, and which library multiplies
float32 matrices on a CPU. `step.py` and `graphs.py` are the two kinds of step. `linears.py`,
`onednn.py` and `memories.py` replace slow parts of the model while a step runs.
"""
