"""From YAML text to a tree of maps and lists that know their places; knows nothing of the language."""
