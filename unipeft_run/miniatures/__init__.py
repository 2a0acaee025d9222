"""scale=mini: small backbones, the sources of their data, and the scripts that trained them."""
