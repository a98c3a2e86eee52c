"""Parse YAML text into a tree of maps and lists with positions; independent of the recipe language."""
