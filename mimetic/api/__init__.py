"""The calls for your own training loop, network and images; `mimetic` itself offers them."""
