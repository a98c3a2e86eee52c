"""The graph: sites of any `nn.Module`, with names, geometry and order of execution."""
