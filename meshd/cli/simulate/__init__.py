"""`meshd simulate` apart from its command: option types, recorded traffic, runs, reports."""
