"""How fast and how large, measured on this machine: `python -m bench`, `… memory`, `… judge`."""
