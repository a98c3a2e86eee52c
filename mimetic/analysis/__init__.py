"""Pictures: data in, figure out. No file is read and no state of pyplot is touched.

With nothing to draw, or weights without two spatial dimensions, a ValueError is raised.
Figures are `matplotlib.figure.Figure` objects; save them with `figure.savefig(path)`.
"""
