"""What a study would do, found out before it starts: every arm's plan, and everything a recipe gets wrong."""
