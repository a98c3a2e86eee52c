"""An example plug-in: five components, each a section in `config.py` and one function."""
