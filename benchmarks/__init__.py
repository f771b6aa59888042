"""`make bench`: what each path costs, beside the raw signature of the same run. `docs/performance.md` has
figures and says how to read them.

`load` sends, in a process of its own; `deployments` are the servers; `plans` says what is sent; `measuring` times a
cell; `rounds` puts cells in turns; `targets` judges; `tables` shows.
"""
