"""The analysis of measured runs: from their JSON files to tables, pictures and a machine-readable summary.

Nothing here imports torch or the kernels: the JSON file is the only door between measuring and concluding.
`report`, `comparison` and `history` answer a question each and know nothing of one another. They stand on
`reading` (what was measured), `scaling` (the statistics), and what makes all conclusions look alike: `plots`,
`document`, `wording` and `serialization`.
"""
