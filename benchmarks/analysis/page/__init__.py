"""The page of a report, a comparison or a history: its content, its plots, and the HTML of both."""
