"""What the trials came to: paired statistics over seeds, as values, text and figures."""
