"""Studies: arms × seeds × stages, executed, tracked and compared.

Imports nothing by itself: comparing what lies on the disk needs no torch.
"""
