"""Every picture of a report, and the look they share."""
