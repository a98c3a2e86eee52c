"""From trees to what the sections are validated from, and from the schema's errors to words at a place."""
