"""A web page for an export: images in, predictions and Grad-CAM out; and the other runs in its folder.

server.py listens; connections.py is uvicorn with time limits; memory.py returns memory; guard.py refuses other sites;
app.py has the routes, upload.py reads images within limits, classify.py predicts, gradcam.py explains, browse.py finds
the runs; page*.py and static/ are the pages.
"""
