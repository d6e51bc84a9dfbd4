"""t5x: every member of the zoo under `python -m t5x.train`, `t5x.eval` and `t5x.infer`.

The gin files `runs/t5x_train.gin`, `t5x_eval.gin` and `t5x_infer.gin` stand beside any recipe.
t5x is on no package index: docs/t5x.md says how it is installed.
"""
