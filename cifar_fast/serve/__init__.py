"""A page in the browser for an export: images in, probabilities and Grad-CAM out; and the runs beside it.

server.py listens, guard.py lets only this machine's own pages in, app.py holds the routes, upload.py takes images
within limits, looking.py asks the net, gradcam.py where it looked, browse.py finds the runs, page.py and static/ are
what is seen. A table of contents; imports nothing.
"""
