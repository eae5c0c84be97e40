"""Interactive views in the browser: plain data from here, drawn by the JavaScript in ``static/``."""
