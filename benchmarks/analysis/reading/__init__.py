"""The measurements: the JSON file of a run, its fields, its machine, and the records of several runs."""
