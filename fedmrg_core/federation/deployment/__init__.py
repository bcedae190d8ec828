"""A federation of several machines: Flower's SuperLink and SuperNodes under TLS, each with a folder of its own."""
