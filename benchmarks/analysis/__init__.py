"""What follows from measured runs: from their JSON files to tables, pictures and a machine-readable summary.

Nothing here imports torch or the kernels: the JSON file is the only door between measuring and concluding.
"""
