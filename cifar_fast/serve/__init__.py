"""A web page for an export: images in, predictions and Grad-CAM out; the other runs in its folder; a review of labels.

server.py listens; connections.py is uvicorn with time limits; guard.py refuses other sites; app.py has the routes,
upload.py reads images within limits, classify.py predicts, gradcam.py explains, browse.py finds the runs; review.py,
review_routes.py, ranking.py and decisions.py are the review; page*.py and static/ are the pages.
"""
