"""The 43 classes of the German Traffic Sign Recognition Benchmark, which come as numbers, in the order of these."""

LIMITS = tuple(f"speed limit {limit} km/h" for limit in (20, 30, 50, 60, 70, 80))
TRAFFIC_SIGNS = (
    *LIMITS, "end of speed limit 80 km/h", "speed limit 100 km/h", "speed limit 120 km/h", "no passing",
    "no passing for vehicles over 3.5 t", "right of way at the next intersection", "priority road", "yield", "stop",
    "no vehicles", "no vehicles over 3.5 t", "no entry", "general caution", "dangerous curve to the left",
    "dangerous curve to the right", "double curve", "bumpy road", "slippery road", "road narrows on the right",
    "road work", "traffic signals", "pedestrians", "children crossing", "bicycles crossing", "beware of ice or snow",
    "wild animals crossing", "end of all speed and passing limits", "turn right ahead", "turn left ahead",
    "ahead only", "go straight or right", "go straight or left", "keep right", "keep left", "roundabout mandatory",
    "end of no passing", "end of no passing for vehicles over 3.5 t",
)
