"""The files of a run → bytes of figures and of an HTML page."""
