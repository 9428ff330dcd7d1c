"""Networks. The only folder that imports flax.linen."""
