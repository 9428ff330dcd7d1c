"""Embeddings of one example, one file each; see `nn.backbone.Backbone`."""
