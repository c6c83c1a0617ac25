"""What survives: a journal of finished cases, files that are written whole, locks, and processes that end."""
