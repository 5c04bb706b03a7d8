"""A page in the browser for an export: images in, predictions and Grad-CAM out; and the runs beside it.

server.py listens and runs connections.py, which is uvicorn with time limits; guard.py refuses other sites; app.py has
the routes, upload.py reads images within limits, classify.py predicts, gradcam.py explains, browse.py finds the runs;
page*.py and static/ are the pages.
"""
