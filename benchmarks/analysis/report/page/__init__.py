"""The page of a report: what its tabs, plots and tables show of its summary and cases."""
