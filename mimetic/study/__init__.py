"""Studies: arms × seeds × stages, executed, tracked and compared.

Imports nothing by itself: comparing finished studies needs no torch.
"""
