"""An example plug-in: six components, each a section in `config.py` and one function."""
