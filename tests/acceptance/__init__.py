"""The real processes, hurt in real ways. Nothing here is patched but one clock (clock/sitecustomize.py)."""
