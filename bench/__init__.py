"""How fast and how large, measured on this machine: `python -m bench`; what there is stands in `bench/__main__.py`."""
