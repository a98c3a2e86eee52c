"""Plan a study before it starts: every arm's plan, and every mistake of the recipe."""
