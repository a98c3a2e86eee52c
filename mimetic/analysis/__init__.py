"""Pictures: data in, figure out. No file is read and no state of pyplot is touched.

Figures are `matplotlib.figure.Figure` objects; save them with `figure.savefig(path)`.
"""
