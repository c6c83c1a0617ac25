"""One sequence on several ranks: measured in sessions of one process a rank."""
