"""Build the parts from the settings; convert requests, results and errors from and to HTTP."""
