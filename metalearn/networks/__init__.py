"""Networks that read tokens in order, one file each; see `nn.network.Network`."""
